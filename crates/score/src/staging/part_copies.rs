//! Copies of an unfinished run's parts in a store, so that another machine can resume the run.
//!
//! The object name of a part starts with the beginning of its hash, so that two processes that
//! score the same shard cannot overwrite each other's parts. Only parts listed in the manifest are
//! valid. The manifest is replaced only if it is still the version that this process read or wrote;
//! otherwise another process is at work, and this one fails.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::StagingError;
use crate::{MANIFEST, RemoteParts};
use rgby_common::atomic_file;
use rgby_store::{ObjectVersion, Store, StoreError, StoreErrorKind};

/// Largest part or manifest in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The copies of the parts of one run.
#[derive(Debug)]
pub(super) struct PartCopies {
    store: Store,
    /// Name of the folder of the parts.
    folder: String,
    /// Version of the manifest that this process read or wrote; `None` if there was none.
    version: Option<ObjectVersion>,
}

/// The fields of a manifest that name its part files.
#[derive(Deserialize)]
struct PartList {
    parts: Vec<PartEntry>,
}

#[derive(Deserialize)]
struct PartEntry {
    file: String,
    sha256: String,
}

impl PartCopies {
    /// Downloads the manifest of the run whose parts are in `folder` of `store` into the folder
    /// `local`, and with `resume` the parts.
    pub(super) fn fetch(
        store: &Store,
        folder: &str,
        local: &Path,
        resume: bool,
    ) -> Result<Self, StagingError> {
        let mut copies = Self {
            store: store.clone(),
            folder: folder.to_owned(),
            version: None,
        };
        let manifest = match store.get(&copies.name(MANIFEST), MAX_BYTES) {
            Ok((manifest, version)) => {
                copies.version = Some(version);
                manifest
            }
            Err(error) if matches!(error.kind, StoreErrorKind::Missing { .. }) => {
                return Ok(copies);
            }
            Err(error) => return Err(error.into()),
        };
        fs::create_dir_all(local)?;
        // `ResultParts::open` reports a damaged manifest.
        let list: Option<PartList> = serde_json::from_slice(&manifest).ok();
        let parts = list
            .filter(|_| resume)
            .map_or(Vec::new(), |list| list.parts);
        for part in parts {
            let is_plain_name = Path::new(&part.file).file_name() == Some(part.file.as_ref());
            if !is_plain_name {
                continue;
            }
            match store.get(&copies.part_name(&part.file, &part.sha256), MAX_BYTES) {
                Ok((bytes, _)) => atomic_file::write_atomic(&local.join(&part.file), &bytes)?,
                // `ResultParts` reports missing parts when it reads them.
                Err(error) if matches!(error.kind, StoreErrorKind::Missing { .. }) => {}
                Err(error) => return Err(StagingError::Part(error)),
            }
        }
        atomic_file::write_atomic(&local.join(MANIFEST), &manifest)?;
        Ok(copies)
    }

    fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    fn part_name(&self, file: &str, sha256: &str) -> String {
        let hash: String = sha256.chars().take(16).collect();
        self.name(&format!("{hash}-{file}"))
    }
}

impl RemoteParts for PartCopies {
    fn part(&mut self, file: &Path, sha256: &str) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = self.part_name(&name, sha256);
        // An existing object of this name has the same bytes.
        self.store.put_file(&name, file).map_err(io::Error::other)
    }

    fn manifest(&mut self, text: &[u8]) -> io::Result<()> {
        let name = self.name(MANIFEST);
        let written = match &self.version {
            Some(version) => self.store.update(&name, text.to_vec(), version),
            None => self.store.create(&name, text.to_vec()),
        };
        self.version = Some(written.map_err(|error| conflict(&error))?);
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        let remove = || -> Result<(), StoreError> {
            // Without a manifest, parts are invalid, so the manifest is deleted first.
            self.store.delete(&self.name(MANIFEST))?;
            let names: Vec<String> = self
                .store
                .folder(&self.folder)
                .list()
                .collect::<Result<_, _>>()?;
            for name in names {
                self.store.delete(&self.name(&name))?;
            }
            Ok(())
        };
        remove().map_err(io::Error::other)
    }
}

/// Explains the error for a manifest that another process has replaced.
fn conflict(error: &StoreError) -> io::Error {
    if error.kind != StoreErrorKind::Conflict {
        return io::Error::other(error.to_string());
    }
    io::Error::other(format!(
        "{}: another process scores the same samples into the same file\n\
         hint: stop one of the two processes, then restart the other with --resume",
        error.url
    ))
}
