//! One object whole: in one request, or a large one in several side by side.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, UpdateVersion};

use super::super::{StoreError, StoreErrorKind, Url};
use super::explain::is_cut;
use super::gate::ConnectionGate;
use super::{ObjectVersion, StoreState};

/// Larger objects are read in ranges of this size: one connection alone is slower than most lines.
const RANGE: u64 = 8 << 20;
/// Ranges of one object that are under way at a time.
const RANGES: usize = 8;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MOST_WAIT: Duration = Duration::from_secs(15);

/// What is to be read.
struct Object {
    url: Url,
    path: Path,
    /// Most bytes that it may have.
    limit: u64,
}

impl Object {
    fn fail(&self, kind: StoreErrorKind, again: bool) -> Attempt {
        Attempt {
            error: StoreError::new(&self.url, kind),
            again,
        }
    }
}

/// Why an attempt failed, and whether another one makes sense.
struct Attempt {
    error: StoreError,
    again: bool,
}

impl StoreState {
    /// Reads an object into `bytes`, whose contents are lost.
    ///
    /// The crate makes requests again whose answer does not begin; what happens here is the rest:
    /// bodies that end too early, and versions that do not go together.
    pub(super) async fn fetch(
        &self,
        name: &str,
        limit: u64,
        bytes: &mut Vec<u8>,
        gate: &mut ConnectionGate,
    ) -> Result<ObjectVersion, StoreError> {
        let url = self.url.join(name);
        let object = Object {
            path: Self::path(&url)?,
            url,
            limit,
        };
        let mut tried = 0;
        loop {
            match self.attempt(&object, bytes, gate).await {
                Ok(version) => return Ok(version),
                Err(Attempt { again: true, .. }) if tried < self.options.retries => {
                    wait_before(tried).await;
                    tried += 1;
                }
                Err(Attempt { error, .. }) => return Err(error),
            }
        }
    }

    async fn attempt(
        &self,
        object: &Object,
        bytes: &mut Vec<u8>,
        gate: &mut ConnectionGate,
    ) -> Result<ObjectVersion, Attempt> {
        bytes.clear();
        let permit = self.requests.acquire().await;
        let got = self
            .client
            .store()
            .get_opts(&object.path, GetOptions::default());
        // Of a refusal, the crate does not ask again for what was cut.
        let got = got
            .await
            .map_err(|error| self.failed(object, &error, is_cut(&error)))?;
        let meta = got.meta.clone();
        let (size, limit) = (meta.size, object.limit);
        if size > limit {
            return Err(object.fail(StoreErrorKind::TooLarge { size, limit }, false));
        }
        let permit = if gate.is_open(size) {
            permit
        } else {
            // Whoever waits for memory keeps nobody from making requests.
            drop(permit);
            gate.pass(size).await;
            self.requests.acquire().await
        };
        bytes.reserve(size as usize);
        let read = read_body(got.into_stream(), size.min(RANGE), bytes).await;
        drop(permit);
        // With a tag, the crate goes on by itself where a body was cut.
        let again = meta.e_tag.is_none();
        read.map_err(|error| self.failed(object, &error, again))?;
        if bytes.len() as u64 == size.min(RANGE) {
            self.rest(object, &meta, bytes).await?;
        }
        let got = bytes.len() as u64;
        if got != size {
            return Err(object.fail(StoreErrorKind::Cut { got, size }, true));
        }
        Ok(ObjectVersion(UpdateVersion {
            e_tag: meta.e_tag,
            version: meta.version,
        }))
    }

    /// What is behind the first range.
    async fn rest(
        &self,
        object: &Object,
        meta: &ObjectMeta,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Attempt> {
        let starts = (RANGE..meta.size).step_by(RANGE as usize);
        let ranges = starts.map(|start| start..(start + RANGE).min(meta.size));
        let mut parts = stream::iter(ranges)
            .map(|range| self.range(object, meta, range))
            .buffered(RANGES);
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(())
    }

    /// A part of the version `meta` of an object.
    async fn range(
        &self,
        object: &Object,
        meta: &ObjectMeta,
        range: Range<u64>,
    ) -> Result<Bytes, Attempt> {
        // A weak tag never matches; it is compared below all the same.
        let strong = meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: strong,
            ..GetOptions::default()
        };
        let changed = || object.fail(StoreErrorKind::Changed, false);
        let _permit = self.requests.acquire().await;
        let got = match self.client.store().get_opts(&object.path, options).await {
            Ok(got) => got,
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => return Err(changed()),
            Err(error) => return Err(self.failed(object, &error, false)),
        };
        let same = match &meta.e_tag {
            Some(tag) => got.meta.e_tag.as_ref() == Some(tag),
            None => got.meta.last_modified == meta.last_modified,
        };
        if !same || got.meta.size != meta.size {
            return Err(changed());
        }
        let again = meta.e_tag.is_none();
        let bytes = got.bytes().await;
        bytes.map_err(|error| self.failed(object, &error, again))
    }

    fn failed(&self, object: &Object, error: &Error, again: bool) -> Attempt {
        Attempt {
            error: self.explain.error(&object.url, error),
            again,
        }
    }
}

/// Waits the longer the more often it was `tried`.
pub(super) async fn wait_before(tried: usize) {
    let longer = FIRST_WAIT.saturating_mul(1 << tried.min(16));
    tokio::time::sleep(longer.min(MOST_WAIT)).await;
}

/// Appends the first `count` bytes of a body, or fewer if it is shorter.
async fn read_body(
    mut body: BoxStream<'_, object_store::Result<Bytes>>,
    count: u64,
    bytes: &mut Vec<u8>,
) -> object_store::Result<()> {
    while (bytes.len() as u64) < count {
        let Some(piece) = body.try_next().await? else {
            break;
        };
        let wanted = (count - bytes.len() as u64).min(piece.len() as u64);
        bytes.extend_from_slice(&piece[..wanted as usize]);
    }
    Ok(())
}
