//! Copies of an unfinished run's parts in a store, which outlive the machine.
//!
//! A part's object has the beginning of its hash in its name, so that two processes that score the
//! same shard cannot tear each other's. What counts is the manifest, and that is replaced only if it
//! is still the one that this process wrote or read: of two processes the second is told.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::atomic_file;
use crate::score::{MANIFEST, RemoteParts};
use crate::store::{ObjectVersion, Store, StoreError, StoreErrorKind};

/// Bytes of a part or manifest at most.
const MOST_BYTES: u64 = 1 << 30;

/// The copies of the parts of one run.
#[derive(Debug)]
pub(super) struct StoreCopies {
    store: Store,
    /// The folder of the parts, by its name.
    folder: String,
    /// That of the manifest; `None` if there was none.
    version: Option<ObjectVersion>,
}

/// What of a manifest says which objects there are.
#[derive(Deserialize)]
struct Listed {
    parts: Vec<ListedPart>,
}

#[derive(Deserialize)]
struct ListedPart {
    file: String,
    sha256: String,
}

impl StoreCopies {
    /// Fetches the manifest of the run whose parts are in `folder` of `store` into the folder
    /// `local`, and with `resume` the parts.
    pub(super) fn fetch(
        store: &Store,
        folder: &str,
        local: &Path,
        resume: bool,
    ) -> anyhow::Result<Self> {
        let mut copies = Self {
            store: store.clone(),
            folder: folder.to_owned(),
            version: None,
        };
        let manifest = match store.get(&copies.name(MANIFEST), MOST_BYTES) {
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
        // One that says something else is for the reader of parts to complain of.
        let listed: Option<Listed> = serde_json::from_slice(&manifest).ok();
        let parts = listed
            .filter(|_| resume)
            .map_or(Vec::new(), |listed| listed.parts);
        for part in parts {
            let plain = Path::new(&part.file).file_name() == Some(part.file.as_ref());
            if !plain {
                continue;
            }
            match store.get(&copies.part_name(&part.file, &part.sha256), MOST_BYTES) {
                Ok((bytes, _)) => atomic_file::write_atomic(&local.join(&part.file), &bytes)?,
                // The reader of parts says that it is missing.
                Err(error) if matches!(error.kind, StoreErrorKind::Missing { .. }) => {}
                Err(error) => return Err(error).context("a part of the unfinished run"),
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

impl RemoteParts for StoreCopies {
    fn part(&mut self, file: &Path, sha256: &str) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = self.part_name(&name, sha256);
        // What is there under this name, of a process that died or is at work beside this one, has
        // the same bytes.
        self.store.put_file(&name, file).map_err(io::Error::other)
    }

    fn manifest(&mut self, text: &[u8]) -> io::Result<()> {
        let name = self.name(MANIFEST);
        let written = match &self.version {
            Some(version) => self.store.update(&name, text.to_vec(), version),
            None => self.store.create(&name, text.to_vec()),
        };
        self.version = Some(written.map_err(|error| taken(&error))?);
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        let remove = || -> Result<(), StoreError> {
            // What no manifest speaks of counts for nothing, so that goes first.
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

/// Says of a manifest that was replaced by somebody else what that means.
fn taken(error: &StoreError) -> io::Error {
    if error.kind != StoreErrorKind::Conflict {
        return io::Error::other(error.to_string());
    }
    io::Error::other(format!(
        "{}: another process scores the same samples into the same file and goes on with it; \
         stop one of the two, then start the other again with --resume",
        error.url
    ))
}
