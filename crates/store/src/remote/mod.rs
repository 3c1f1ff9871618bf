//! Stores by way of the crate `object_store`.

mod ahead;
mod connect;
mod explain;
mod fetch;
mod gate;
mod list;
mod runtime;
mod secrets;
mod upload;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutMode, PutPayload, UpdateVersion};
use tokio::sync::Semaphore;

pub use self::ahead::ReadAhead;
use self::connect::StoreClient;
use self::explain::Explain;
use self::gate::ConnectionGate;
pub use self::list::FileNames;
use super::{StoreError, StoreErrorKind, StoreOptions, Url};

/// Access to one URL: an object, or a folder of objects.
///
/// Its methods wait for the store, with all retries, on the calling thread, which must not be one
/// of an asynchronous runtime. `name` is an object in the folder, or empty for the object itself.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<StoreState>,
}

/// What requests that are under way hold on to.
#[derive(Debug)]
struct StoreState {
    url: Url,
    client: StoreClient,
    options: StoreOptions,
    explain: Explain,
    /// One permit a request.
    requests: Arc<Semaphore>,
}

/// A version of an object, as the store tells versions apart.
#[derive(Debug, Clone)]
pub struct ObjectVersion(UpdateVersion);

impl Store {
    /// Prepares for requests, and makes none.
    ///
    /// # Errors
    ///
    /// The environment's credentials or settings cannot be used.
    pub fn open(url: &Url, options: &StoreOptions) -> Result<Self, StoreError> {
        runtime::get()
            .map_err(|said| StoreError::new(url, StoreErrorKind::Unreachable { said }))?;
        let explain = Explain::new(url);
        let client = StoreClient::connect(url, options, &explain)?;
        Ok(Self {
            shared: Arc::new(StoreState {
                url: url.clone(),
                client,
                requests: Arc::new(Semaphore::new(options.requests.max(1))),
                options: options.clone(),
                explain,
            }),
        })
    }

    /// What it gives access to.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.shared.url
    }

    /// Access to a folder of this folder.
    #[must_use]
    pub fn folder(&self, name: &str) -> Self {
        let shared = StoreState {
            url: self.shared.url.join(name),
            client: self.shared.client.clone(),
            options: self.shared.options.clone(),
            explain: self.shared.explain.clone(),
            requests: self.shared.requests.clone(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The names of the objects in this folder, not of those in folders of it, in the store's order.
    ///
    /// Asks for page after page while iterating, and ends with the first error: the store cannot
    /// be reached, or does not let us; a web server does not list.
    #[must_use]
    pub fn list(&self) -> FileNames {
        FileNames::new(self.shared.clone())
    }

    /// An object's bytes, at most `limit`, and which version that is.
    ///
    /// # Errors
    ///
    /// It is not there, too large, or cannot be had.
    pub fn get(&self, name: &str, limit: u64) -> Result<(Vec<u8>, ObjectVersion), StoreError> {
        let mut bytes = Vec::new();
        let version =
            runtime::wait(
                self.shared
                    .fetch(name, limit, &mut bytes, &mut ConnectionGate::open()),
            )?;
        Ok((bytes, version))
    }

    /// Writes a file whole as an object, whatever was there. A large one goes in pieces, which are
    /// there together once all of them are.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or does not let us; nothing is written to web servers; the file
    /// cannot be read.
    pub fn put_file(&self, name: &str, file: &Path) -> Result<(), StoreError> {
        runtime::wait(self.shared.put_file(name, file))
    }

    /// Writes an object whole if there is none.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file), and [`StoreErrorKind::Conflict`] if there is one.
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> Result<ObjectVersion, StoreError> {
        self.put_mode(name, bytes, PutMode::Create)
    }

    /// Writes an object whole if it is still of this version.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file), and [`StoreErrorKind::Conflict`] if it is not.
    pub fn update(
        &self,
        name: &str,
        bytes: Vec<u8>,
        version: &ObjectVersion,
    ) -> Result<ObjectVersion, StoreError> {
        self.put_mode(name, bytes, PutMode::Update(version.0.clone()))
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`put_file`](Self::put_file).
    pub fn delete(&self, name: &str) -> Result<(), StoreError> {
        let shared = &self.shared;
        let url = shared.url.join(name);
        let path = StoreState::writable(&url)?;
        let deleted = runtime::wait(shared.client.store().delete(&path));
        match deleted.map_err(|error| shared.explain.error(&url, &error)) {
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
        let result = put.map_err(|error| shared.explain.error(&url, &error))?;
        Ok(ObjectVersion(result.into()))
    }
}

impl StoreState {
    /// The path of an object.
    fn path(url: &Url) -> Result<object_store::path::Path, StoreError> {
        if url.key().is_empty() {
            return Err(StoreError::new(url, StoreErrorKind::NoObject));
        }
        object_store::path::Path::parse(url.key()).map_err(|error| {
            let said = error.to_string();
            StoreError::new(url, StoreErrorKind::Name { said })
        })
    }

    /// The path of an object that is to be written.
    fn writable(url: &Url) -> Result<object_store::path::Path, StoreError> {
        if url.scheme().is_web() {
            return Err(StoreError::new(url, StoreErrorKind::ReadOnly));
        }
        Self::path(url)
    }
}
