//! Access to stores through the crate `object_store`.

mod connect;
mod error_translator;
mod fetch;
mod gate;
mod list;
mod read_ahead;
mod runtime;
mod secrets;
mod upload;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutMode, PutPayload, UpdateVersion};
use tokio::sync::Semaphore;

use self::connect::StoreClient;
use self::error_translator::ErrorTranslator;
use self::gate::ConnectionGate;
pub use self::list::FileNames;
pub use self::read_ahead::ReadAhead;
use super::{StoreError, StoreErrorKind, StoreOptions, Url};

/// Access to one URL: an object, or a folder of objects.
///
/// Methods block the calling thread, which must not belong to an asynchronous runtime, until all
/// retries are done. `name` is an object in the folder, or empty for the object itself.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<StoreState>,
}

/// State shared by running requests.
#[derive(Debug)]
struct StoreState {
    url: Url,
    client: StoreClient,
    options: StoreOptions,
    errors: ErrorTranslator,
    /// One permit per request.
    requests: Arc<Semaphore>,
}

/// A version of an object.
#[derive(Debug, Clone)]
pub struct ObjectVersion(UpdateVersion);

impl Store {
    /// Configures a client; makes no request.
    ///
    /// # Errors
    ///
    /// The credentials or settings in the environment are invalid.
    pub fn open(url: &Url, options: &StoreOptions) -> Result<Self, StoreError> {
        runtime::get()
            .map_err(|reason| StoreError::new(url, StoreErrorKind::Unreachable { reason }))?;
        let errors = ErrorTranslator::new(url);
        let client = StoreClient::connect(url, options, &errors)?;
        Ok(Self {
            shared: Arc::new(StoreState {
                url: url.clone(),
                client,
                requests: Arc::new(Semaphore::new(options.requests.max(1))),
                options: options.clone(),
                errors,
            }),
        })
    }

    /// Returns the URL of the object or folder.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.shared.url
    }

    /// Returns a subfolder.
    #[must_use]
    pub fn folder(&self, name: &str) -> Self {
        let shared = StoreState {
            url: self.shared.url.join(name),
            client: self.shared.client.clone(),
            options: self.shared.options.clone(),
            errors: self.shared.errors.clone(),
            requests: self.shared.requests.clone(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Lists the names of the objects in this folder, subfolders excluded, in the order of the
    /// store.
    ///
    /// Requests pages while iterating, and ends with the first error: the store is not reachable or
    /// denies access, or a web server does not list.
    #[must_use]
    pub fn list(&self) -> FileNames {
        FileNames::new(self.shared.clone())
    }

    /// Reads an object of at most `limit` bytes, and its version.
    ///
    /// # Errors
    ///
    /// The object does not exist, is too large, or cannot be read.
    pub fn get(&self, name: &str, limit: u64) -> Result<(Vec<u8>, ObjectVersion), StoreError> {
        let mut bytes = Vec::new();
        let version =
            runtime::wait(
                self.shared
                    .fetch(name, limit, &mut bytes, &mut ConnectionGate::open()),
            )?;
        Ok((bytes, version))
    }

    /// Uploads a file, replacing the object. A large file is uploaded in parts and becomes visible
    /// as a whole.
    ///
    /// # Errors
    ///
    /// The store is not reachable, denies access or is a web server, or the file cannot be read.
    pub fn put_file(&self, name: &str, file: &Path) -> Result<(), StoreError> {
        runtime::wait(self.shared.put_file(name, file))
    }

    /// Creates an object.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file), and [`StoreErrorKind::Conflict`] if the object exists.
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> Result<ObjectVersion, StoreError> {
        self.put_mode(name, bytes, PutMode::Create)
    }

    /// Replaces an object of this version.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file), and [`StoreErrorKind::Conflict`] if it has another version.
    pub fn update(
        &self,
        name: &str,
        bytes: Vec<u8>,
        version: &ObjectVersion,
    ) -> Result<ObjectVersion, StoreError> {
        self.put_mode(name, bytes, PutMode::Update(version.0.clone()))
    }

    /// Deletes an object, if it exists.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file).
    pub fn delete(&self, name: &str) -> Result<(), StoreError> {
        let shared = &self.shared;
        let url = shared.url.join(name);
        let path = StoreState::writable(&url)?;
        let deleted = runtime::wait(shared.client.store().delete(&path));
        match deleted.map_err(|error| shared.errors.error(&url, &error)) {
            Err(error) if !matches!(error.kind, StoreErrorKind::Missing { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    fn put_mode(
        &self,
        name: &str,
        bytes: Vec<u8>,
        mode: PutMode,
    ) -> Result<ObjectVersion, StoreError> {
        let shared = &self.shared;
        let url = shared.url.join(name);
        let path = StoreState::writable(&url)?;
        let payload = PutPayload::from(Bytes::from(bytes));
        let put = shared.client.store().put_opts(&path, payload, mode.into());
        let put = runtime::wait(put);
        let result = put.map_err(|error| shared.errors.error(&url, &error))?;
        Ok(ObjectVersion(result.into()))
    }
}

impl StoreState {
    /// Returns the path of an object.
    fn path(url: &Url) -> Result<object_store::path::Path, StoreError> {
        if url.key().is_empty() {
            return Err(StoreError::new(url, StoreErrorKind::NoObject));
        }
        object_store::path::Path::parse(url.key()).map_err(|error| {
            let reason = error.to_string();
            StoreError::new(url, StoreErrorKind::Name { reason })
        })
    }

    /// Returns the path of an object to write.
    fn writable(url: &Url) -> Result<object_store::path::Path, StoreError> {
        if url.scheme().is_web() {
            return Err(StoreError::new(url, StoreErrorKind::ReadOnly));
        }
        Self::path(url)
    }
}
