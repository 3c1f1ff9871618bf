//! Uploads of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use object_store::{ObjectStoreExt as _, PutPayload, WriteMultipart};

use super::super::{StoreError, StoreErrorKind};
use super::StoreState;

/// Larger files are uploaded in parts of this size. A single request for a large file could exceed
/// the timeout, and a retry would repeat all of it.
const PART: usize = 8 << 20;
/// Concurrent parts.
const PARTS: usize = 4;

impl StoreState {
    pub(super) async fn put_file(&self, name: &str, file: &Path) -> Result<(), StoreError> {
        let url = self.url.join(name);
        let path = Self::writable(&url)?;
        let failed = |error: &object_store::Error| self.errors.error(&url, error);
        let unreadable = |error: io::Error| {
            let (file, reason) = (file.display().to_string(), error.to_string());
            StoreError::new(&url, StoreErrorKind::Source { file, reason })
        };
        let mut source = File::open(file).map_err(unreadable)?;
        let mut part = Vec::new();
        read_part(&mut source, &mut part).map_err(unreadable)?;
        let store = self.client.store();
        if part.len() < PART {
            let put = store.put(&path, PutPayload::from(part)).await;
            return put.map(drop).map_err(|error| failed(&error));
        }
        let upload = store.put_multipart(&path).await;
        let upload = upload.map_err(|error| failed(&error))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART);
        while !part.is_empty() {
            let room = writer.wait_for_capacity(PARTS).await;
            room.map_err(|error| failed(&error))?;
            writer.write(&part);
            read_part(&mut source, &mut part).map_err(unreadable)?;
        }
        let finished = writer.finish().await;
        finished.map(drop).map_err(|error| failed(&error))
    }
}

fn read_part(source: &mut File, part: &mut Vec<u8>) -> io::Result<()> {
    part.clear();
    source.take(PART as u64).read_to_end(part).map(drop)
}
