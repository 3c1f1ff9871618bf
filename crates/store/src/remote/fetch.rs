//! Reads whole objects: small ones in one request, large ones in concurrent ranges.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, UpdateVersion};

use super::super::{StoreError, StoreErrorKind, Url};
use super::error_translator::is_cut_off;
use super::gate::ConnectionGate;
use super::{ObjectVersion, StoreState};

/// Larger objects are read in ranges of this size: a single connection is slower than most
/// networks.
const RANGE: u64 = 8 << 20;
/// Concurrent ranges of one object.
const RANGES: usize = 8;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// An object to read.
struct ObjectRequest {
    url: Url,
    path: Path,
    /// Maximum size in bytes.
    limit: u64,
}

impl ObjectRequest {
    fn fail(&self, kind: StoreErrorKind, retry: bool) -> FailedAttempt {
        FailedAttempt {
            error: StoreError::new(&self.url, kind),
            retry,
        }
    }
}

/// Why an attempt failed, and whether to retry.
struct FailedAttempt {
    error: StoreError,
    retry: bool,
}

impl StoreState {
    /// Reads an object into `bytes`, replacing its contents.
    ///
    /// `object_store` retries requests whose response does not begin. This method retries truncated
    /// bodies and rejects ranges of different versions.
    pub(super) async fn fetch(
        &self,
        name: &str,
        limit: u64,
        bytes: &mut Vec<u8>,
        gate: &mut ConnectionGate,
    ) -> Result<ObjectVersion, StoreError> {
        let url = self.url.join(name);
        let object = ObjectRequest {
            path: Self::path(&url)?,
            url,
            limit,
        };
        let mut tried = 0;
        loop {
            match self.attempt(&object, bytes, gate).await {
                Ok(version) => return Ok(version),
                Err(FailedAttempt { retry: true, .. }) if tried < self.options.retries => {
                    wait_before(tried).await;
                    tried += 1;
                }
                Err(FailedAttempt { error, .. }) => return Err(error),
            }
        }
    }

    async fn attempt(
        &self,
        object: &ObjectRequest,
        bytes: &mut Vec<u8>,
        gate: &mut ConnectionGate,
    ) -> Result<ObjectVersion, FailedAttempt> {
        bytes.clear();
        let permit = self.requests.acquire().await;
        let got = self
            .client
            .store()
            .get_opts(&object.path, GetOptions::default());
        // `object_store` does not retry an error response that was cut off.
        let got = got
            .await
            .map_err(|error| self.failed(object, &error, is_cut_off(&error)))?;
        let meta = got.meta.clone();
        let (size, limit) = (meta.size, object.limit);
        if size > limit {
            return Err(object.fail(StoreErrorKind::TooLarge { size, limit }, false));
        }
        let permit = if gate.is_open(size) {
            permit
        } else {
            // A file that waits for memory must not block requests.
            drop(permit);
            gate.pass(size).await;
            self.requests.acquire().await
        };
        bytes.reserve(size as usize);
        let read = read_body(got.into_stream(), size.min(RANGE), bytes).await;
        drop(permit);
        // With an entity tag, `object_store` itself resumes a body that was cut off.
        let retry = meta.e_tag.is_none();
        read.map_err(|error| self.failed(object, &error, retry))?;
        if bytes.len() as u64 == size.min(RANGE) {
            self.rest(object, &meta, bytes).await?;
        }
        let got = bytes.len() as u64;
        if got != size {
            return Err(object.fail(StoreErrorKind::Truncated { got, size }, true));
        }
        Ok(ObjectVersion(UpdateVersion {
            e_tag: meta.e_tag,
            version: meta.version,
        }))
    }

    /// Reads the ranges after the first one.
    async fn rest(
        &self,
        object: &ObjectRequest,
        meta: &ObjectMeta,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FailedAttempt> {
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

    /// Reads a range of the version `meta` of an object.
    async fn range(
        &self,
        object: &ObjectRequest,
        meta: &ObjectMeta,
        range: Range<u64>,
    ) -> Result<Bytes, FailedAttempt> {
        // `If-Match` never matches a weak tag; it is compared below.
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
        let retry = meta.e_tag.is_none();
        let bytes = got.bytes().await;
        bytes.map_err(|error| self.failed(object, &error, retry))
    }

    fn failed(&self, object: &ObjectRequest, error: &Error, retry: bool) -> FailedAttempt {
        FailedAttempt {
            error: self.errors.error(&object.url, error),
            retry,
        }
    }
}

/// Waits with exponential backoff before retry number `tried + 1`.
pub(super) async fn wait_before(tried: usize) {
    let longer = MIN_BACKOFF.saturating_mul(1 << tried.min(16));
    tokio::time::sleep(longer.min(MAX_BACKOFF)).await;
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
