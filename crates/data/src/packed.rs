//! A file of equally long records, each with its hash: what is computed once and read many times.
//!
//! ```text
//! kind        8 bytes
//! records     count × record_len bytes
//! hashes      count × 32 bytes, SHA-256 of each record
//! index       JSON: record_len, count and what the records are
//! length      8 bytes, little endian: that of the index
//! seal        32 bytes, SHA-256 of all but the records
//! ```
//!
//! The index comes last because only then is it known what could be computed. The file is read by
//! position, not mapped into memory: a file that is cut short while it is in use is then an error
//! and no crash, and the copy from the system's cache is nothing beside what is done with it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use rgby_common::atomic_file::{self, hex};

/// Bytes after the index.
const TAIL: u64 = 8 + 32;
/// Largest index that is read, in bytes.
const MAX_INDEX: u64 = 1 << 30;

/// Why a packed file cannot be used.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct PackedError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: PackedFault,
}

/// What is wrong with a packed file.
#[derive(Debug, Error)]
pub enum PackedFault {
    /// The file system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("is not a file that rgby wrote for this; give another name")]
    Kind,
    /// Not as long as it says, or its index is not as it was written.
    #[error("is cut short or damaged; remove it, and it can be made again")]
    Damaged,
    /// A record is not as it was written.
    #[error("record {0} is damaged; remove the file, and it can be made again")]
    Record(usize),
}

/// What the index says.
#[derive(Debug, Serialize, Deserialize)]
struct Index<T> {
    record_len: usize,
    count: usize,
    about: T,
}

/// Writes a packed file record by record.
struct PackedWriter<'a, W> {
    file: &'a mut W,
    record_len: usize,
    hashes: Vec<u8>,
    seal: Sha256,
}

impl<'a, W: Write> PackedWriter<'a, W> {
    /// Begins a file of a kind.
    fn new(file: &'a mut W, kind: [u8; 8], record_len: usize) -> io::Result<Self> {
        file.write_all(&kind)?;
        Ok(Self {
            file,
            record_len,
            hashes: Vec::new(),
            seal: Sha256::new_with_prefix(kind),
        })
    }

    /// Appends a record; panics if it has another length than was said.
    fn push(&mut self, record: &[u8]) -> io::Result<()> {
        assert_eq!(record.len(), self.record_len, "records are equally long");
        self.hashes.extend_from_slice(&Sha256::digest(record));
        self.file.write_all(record)
    }

    /// Ends the file and says what its records are.
    fn finish<T: Serialize>(mut self, about: T) -> io::Result<()> {
        let index = serde_json::to_vec(&Index {
            record_len: self.record_len,
            count: self.hashes.len() / 32,
            about,
        })?;
        for part in [&self.hashes, &index, &index.len().to_le_bytes().to_vec()] {
            self.seal.update(part);
            self.file.write_all(part)?;
        }
        self.file.write_all(&self.seal.finalize())
    }
}

/// A packed file, open for reading by any number of threads.
#[derive(Debug)]
pub struct Packed<T> {
    path: PathBuf,
    file: Mutex<File>,
    index: Index<T>,
    hashes: Vec<u8>,
    /// Whether a record was found to be as it was written.
    sound: Vec<AtomicBool>,
    seal: String,
}

impl<T: DeserializeOwned> Packed<T> {
    /// Opens a file of a kind; the records are looked at when they are read first.
    ///
    /// # Errors
    ///
    /// [`PackedError`] if it is missing, of another kind, cut short or damaged.
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
        let (length, seal) = tail.split_at(8);
        let length = u64::from_le_bytes(length.try_into().map_err(|_| PackedFault::Damaged)?);
        let index_start = total.checked_sub(TAIL + length);
        let index_start = index_start.filter(|start| *start >= 8 && length <= MAX_INDEX);
        let index_start = index_start.ok_or(PackedFault::Damaged)?;
        let index_bytes = read_at(&mut file, index_start, length)?;
        let index: Index<T> =
            serde_json::from_slice(&index_bytes).map_err(|_| PackedFault::Damaged)?;
        let count = index.count as u64;
        // Wide enough for what any index says.
        let expected = u128::from(count) * (index.record_len as u128 + 32);
        if u128::from(index_start - 8) != expected {
            return Err(PackedFault::Damaged);
        }
        let hashes = read_at(&mut file, index_start - 32 * count, 32 * count)?;
        let mut expected = Sha256::new_with_prefix(kind);
        for part in [&hashes, &index_bytes, &tail[..8].to_vec()] {
            expected.update(part);
        }
        if expected.finalize()[..] != *seal {
            return Err(PackedFault::Damaged);
        }
        Ok(Self {
            path: path.into(),
            file: Mutex::new(file),
            sound: (0..count).map(|_| AtomicBool::new(false)).collect(),
            seal: hex(seal),
            index,
            hashes,
        })
    }
}

impl<T> Packed<T> {
    /// What the records are.
    pub fn about(&self) -> &T {
        &self.index.about
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.index.count
    }

    /// Bytes of a record.
    pub fn record_len(&self) -> usize {
        self.index.record_len
    }

    /// SHA-256 over everything in the file, by way of the records' hashes, in hexadecimal digits.
    pub fn seal(&self) -> &str {
        &self.seal
    }

    /// SHA-256 of record `number`.
    pub fn hash(&self, number: usize) -> &[u8] {
        &self.hashes[32 * number..][..32]
    }

    /// Reads record `number`; the first time its hash is checked.
    ///
    /// # Errors
    ///
    /// [`PackedError`] if the file cannot be read, or the record is not as it was written.
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
            // What a panicking thread left behind is a position, and each read sets its own.
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            read_at(&mut file, 8 + number as u64 * len, len).map_err(fail)?
        };
        if !self.sound[number].load(Ordering::Relaxed) {
            if Sha256::digest(&record)[..] != *self.hash(number) {
                return Err(fail(PackedFault::Record(number)));
            }
            self.sound[number].store(true, Ordering::Relaxed);
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

/// Writes a packed file as one atomic step: of two writers the later one wins, whole.
///
/// # Errors
///
/// `content`'s, or the file system's.
///
/// # Panics
///
/// If a record has another length than `record_len`.
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
    fn records_are_read_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let packed = Packed::<String>::open(&written(dir.path()), KIND).unwrap();
        assert_eq!((packed.len(), packed.record_len()), (3, 3));
        assert_eq!(packed.about(), "letters");
        for (number, record) in [(2, b"ghi"), (0, b"abc"), (1, b"def"), (0, b"abc")] {
            assert_eq!(packed.read(number).unwrap(), record);
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let whole = fs::read(&path).unwrap();
        let all = |path: &Path| -> Result<(), PackedError> {
            let packed = Packed::<String>::open(path, KIND)?;
            (0..packed.len()).try_for_each(|number| packed.read(number).map(drop))
        };
        all(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(all(&path).is_err(), "byte {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(all(&path).is_err(), "cut at {place}");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(all(&path).is_err(), "a byte more");
    }

    #[test]
    fn two_writers_leave_one_whole_file() {
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
