//! Files on their way into a store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use object_store::{ObjectStoreExt as _, PutPayload, WriteMultipart};

use super::super::{StoreError, StoreErrorKind};
use super::StoreState;

/// Larger files go in pieces of this size. One request for all of a large file would be silent for
/// longer than a store may be, and be made again as a whole.
const PIECE: usize = 8 << 20;
/// Pieces under way at a time.
const PIECES: usize = 4;

impl StoreState {
    pub(super) async fn put_file(&self, name: &str, file: &Path) -> Result<(), StoreError> {
        let url = self.url.join(name);
        let path = Self::writable(&url)?;
        let failed = |error: &object_store::Error| self.explain.error(&url, error);
        let unreadable = |error: io::Error| {
            let (file, said) = (file.display().to_string(), error.to_string());
            StoreError::new(&url, StoreErrorKind::Source { file, said })
        };
        let mut source = File::open(file).map_err(unreadable)?;
        let mut piece = Vec::new();
        read_piece(&mut source, &mut piece).map_err(unreadable)?;
        let store = self.client.store();
        if piece.len() < PIECE {
            let put = store.put(&path, PutPayload::from(piece)).await;
            return put.map(drop).map_err(|error| failed(&error));
        }
        let upload = store.put_multipart(&path).await;
        let upload = upload.map_err(|error| failed(&error))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PIECE);
        while !piece.is_empty() {
            let room = writer.wait_for_capacity(PIECES).await;
            room.map_err(|error| failed(&error))?;
            writer.write(&piece);
            read_piece(&mut source, &mut piece).map_err(unreadable)?;
        }
        let finished = writer.finish().await;
        finished.map(drop).map_err(|error| failed(&error))
    }
}

fn read_piece(source: &mut File, piece: &mut Vec<u8>) -> io::Result<()> {
    piece.clear();
    source.take(PIECE as u64).read_to_end(piece).map(drop)
}
