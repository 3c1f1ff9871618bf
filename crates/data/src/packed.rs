//! A file of records of equal length, each with its hash, for data that is computed once and read
//! many times.
//!
//! ```text
//! kind        8 bytes
//! records     count × record_len bytes
//! hashes      count × 32 bytes, SHA-256 of each record
//! index       JSON: record_len, count, and a description of the records (about)
//! length      8 bytes, little-endian: length of the index
//! checksum    32 bytes, SHA-256 of everything except the records
//! ```
//!
//! The index is last, because the number of records is only known at the end. The file is read with
//! seek and read, not mapped into memory: truncating it during use is then an error and not a
//! crash. The extra copy costs little compared with the use of the data.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use rgby_common::atomic_file;

/// Bytes after the index.
const TAIL: u64 = 8 + 32;
/// Limit of the index in bytes.
const MAX_INDEX: u64 = 1 << 30;

/// Why a packed file cannot be used.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct PackedError {
    pub path: PathBuf,
    pub fault: PackedFault,
}

/// Why a packed file is invalid. Each text is one line, as it becomes a row of error tables.
#[derive(Debug, Error)]
pub enum PackedFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("is another kind of file; use another file name")]
    Kind,
    /// A wrong length or checksum.
    #[error("is truncated or damaged; remove it and create it again")]
    Damaged,
    /// A wrong hash of a record.
    #[error("record {0} is damaged; remove the file and create it again")]
    Record(usize),
}

#[derive(Debug, Serialize, Deserialize)]
struct PackedIndex<T> {
    record_len: usize,
    count: usize,
    about: T,
}

struct PackedWriter<'a, W> {
    file: &'a mut W,
    record_len: usize,
    hashes: Vec<u8>,
    checksum: Sha256,
}

impl<'a, W: Write> PackedWriter<'a, W> {
    /// Writes the magic bytes `kind`.
    fn new(file: &'a mut W, kind: [u8; 8], record_len: usize) -> io::Result<Self> {
        file.write_all(&kind)?;
        Ok(Self {
            file,
            record_len,
            hashes: Vec::new(),
            checksum: Sha256::new_with_prefix(kind),
        })
    }

    /// Appends a record. Panics if its length is not `record_len`.
    fn push(&mut self, record: &[u8]) -> io::Result<()> {
        assert_eq!(record.len(), self.record_len, "records have equal length");
        self.hashes.extend_from_slice(&Sha256::digest(record));
        self.file.write_all(record)
    }

    /// Writes hashes, index and checksum. `about` describes the records.
    fn finish<T: Serialize>(mut self, about: T) -> io::Result<()> {
        let index = serde_json::to_vec(&PackedIndex {
            record_len: self.record_len,
            count: self.hashes.len() / 32,
            about,
        })?;
        for part in [&self.hashes, &index, &index.len().to_le_bytes().to_vec()] {
            self.checksum.update(part);
            self.file.write_all(part)?;
        }
        self.file.write_all(&self.checksum.finalize())
    }
}

/// An open packed file, readable from any number of threads.
#[derive(Debug)]
pub struct Packed<T> {
    path: PathBuf,
    file: Mutex<File>,
    index: PackedIndex<T>,
    hashes: Vec<u8>,
    /// Whether the hash of a record was already checked.
    verified: Vec<AtomicBool>,
    checksum: String,
}

impl<T: DeserializeOwned> Packed<T> {
    /// Opens a file with the magic bytes `kind`. The hash of a record is checked at its first read.
    ///
    /// # Errors
    ///
    /// [`PackedError`] if the file is missing, of another kind, truncated or damaged.
    pub fn open(path: &Path, kind: [u8; 8]) -> Result<Self, PackedError> {
        Self::read_index(path, kind).map_err(|fault| PackedError {
            path: path.into(),
            fault,
        })
    }

    fn read_index(path: &Path, kind: [u8; 8]) -> Result<Self, PackedFault> {
        let mut file = File::open(path)?;
        let total = file.metadata()?.len();
        let mut start = [0; 8];
        if total < 8 || file.read_exact(&mut start).is_err() || start != kind {
            return Err(PackedFault::Kind);
        }
        let tail = read_at(&mut file, total.saturating_sub(TAIL).max(8), TAIL)?;
        let (length, checksum) = tail.split_at(8);
        let length = u64::from_le_bytes(length.try_into().map_err(|_| PackedFault::Damaged)?);
        let index_start = total.checked_sub(TAIL + length);
        let index_start = index_start.filter(|start| *start >= 8 && length <= MAX_INDEX);
        let index_start = index_start.ok_or(PackedFault::Damaged)?;
        let index_bytes = read_at(&mut file, index_start, length)?;
        let index: PackedIndex<T> =
            serde_json::from_slice(&index_bytes).map_err(|_| PackedFault::Damaged)?;
        let count = index.count as u64;
        // `u128`, so that no index can overflow it.
        let expected = u128::from(count) * (index.record_len as u128 + 32);
        if u128::from(index_start - 8) != expected {
            return Err(PackedFault::Damaged);
        }
        let hashes = read_at(&mut file, index_start - 32 * count, 32 * count)?;
        let mut expected = Sha256::new_with_prefix(kind);
        for part in [&hashes, &index_bytes, &tail[..8].to_vec()] {
            expected.update(part);
        }
        if expected.finalize()[..] != *checksum {
            return Err(PackedFault::Damaged);
        }
        Ok(Self {
            path: path.into(),
            file: Mutex::new(file),
            verified: (0..count).map(|_| AtomicBool::new(false)).collect(),
            checksum: hex::encode(checksum),
            index,
            hashes,
        })
    }
}

impl<T> Packed<T> {
    /// Returns the description of the records.
    pub fn about(&self) -> &T {
        &self.index.about
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.index.count
    }

    /// Returns the length of a record in bytes.
    pub fn record_len(&self) -> usize {
        self.index.record_len
    }

    /// Returns the SHA-256 over the record hashes and the index, in hexadecimal digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Returns the SHA-256 of record `number`.
    pub fn hash(&self, number: usize) -> &[u8] {
        &self.hashes[32 * number..][..32]
    }

    /// Reads record `number` and, the first time, checks its hash.
    ///
    /// # Errors
    ///
    /// [`PackedError`] if the file cannot be read, or the hash differs.
    ///
    /// # Panics
    ///
    /// If there is no such record.
    pub fn read(&self, number: usize) -> Result<Vec<u8>, PackedError> {
        let fail = |fault| PackedError {
            path: self.path.clone(),
            fault,
        };
        assert!(number < self.len(), "there are {} records", self.len());
        let len = self.record_len() as u64;
        let record = {
            // A poisoned lock is harmless: each read sets the file position.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            read_at(&mut file, 8 + number as u64 * len, len).map_err(fail)?
        };
        if !self.verified[number].load(Ordering::Relaxed) {
            if Sha256::digest(&record)[..] != *self.hash(number) {
                return Err(fail(PackedFault::Record(number)));
            }
            self.verified[number].store(true, Ordering::Relaxed);
        }
        Ok(record)
    }
}

fn read_at(file: &mut File, start: u64, len: u64) -> Result<Vec<u8>, PackedFault> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; len as usize];
    match file.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PackedFault::Damaged),
        result => result.map(|()| bytes).map_err(PackedFault::from),
    }
}

/// Writes a packed file atomically. Of two concurrent writers, the complete file of the later one
/// remains.
///
/// # Errors
///
/// The error of `content` or of the file system.
///
/// # Panics
///
/// If the length of a record is not `record_len`.
pub fn write_packed<T: Serialize>(
    path: &Path,
    kind: [u8; 8],
    record_len: usize,
    content: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<T>,
) -> io::Result<()> {
    atomic_file::write_atomic_with(path, |file| {
        let mut writer = PackedWriter::new(file, kind, record_len)?;
        let about = content(&mut |record| writer.push(record))?;
        writer.finish(about)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KIND: [u8; 8] = *b"rgbytest";

    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("packed");
        write_packed(&path, KIND, 3, |push| {
            for record in [b"abc", b"def", b"ghi"] {
                push(record)?;
            }
            Ok("letters".to_owned())
        })
        .unwrap();
        path
    }

    #[test]
    fn reads_records_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let packed = Packed::<String>::open(&written(dir.path()), KIND).unwrap();
        assert_eq!((packed.len(), packed.record_len()), (3, 3));
        assert_eq!(packed.about(), "letters");
        for (number, record) in [(2, b"ghi"), (0, b"abc"), (1, b"def"), (0, b"abc")] {
            assert_eq!(packed.read(number).unwrap(), record);
        }
    }

    #[test]
    fn detects_every_flipped_byte_and_every_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let valid = fs::read(&path).unwrap();
        let read_all = |path: &Path| -> Result<(), PackedError> {
            let packed = Packed::<String>::open(path, KIND)?;
            (0..packed.len()).try_for_each(|number| packed.read(number).map(drop))
        };
        read_all(&path).unwrap();
        for place in 0..valid.len() {
            let mut bytes = valid.clone();
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(read_all(&path).is_err(), "byte {place}");
            fs::write(&path, &valid[..place]).unwrap();
            assert!(read_all(&path).is_err(), "truncated to {place} bytes");
        }
        fs::write(&path, [&valid[..], b"x"].concat()).unwrap();
        assert!(read_all(&path).is_err(), "one byte appended");
    }

    #[test]
    fn concurrent_writers_leave_one_valid_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("packed");
        std::thread::scope(|scope| {
            for writer in 0..2_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_packed(path, KIND, 1000, |push| {
                            (0..50).try_for_each(|_| push(&[writer; 1000]))?;
                            Ok(writer)
                        })
                        .unwrap();
                    }
                });
            }
        });
        let packed = Packed::<u8>::open(&path, KIND).unwrap();
        for number in 0..50 {
            assert_eq!(packed.read(number).unwrap(), [*packed.about(); 1000]);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
