//! Event files for `TensorBoard` with the scalars of a training run, one step per epoch.
//!
//! A file is a sequence of `TFRecord`s (length, its checksum, data, its checksum), each an `Event`
//! message of TensorFlow's `event.proto`. Only the few fields below are written, so they are encoded
//! here. `TensorBoard` reads a growing file by offset. Therefore this file is appended to, unlike all
//! other outputs, which are replaced. Readers skip a truncated record at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{EpochRow, TimingRow, scalars};

/// Prefix by which readers find event files.
const PREFIX: &str = "events.out.tfevents.";
/// Format version in which a `SessionLog` discards the events of earlier processes.
const VERSION: &str = "brain.Event:2";

/// An event file that grows by one epoch at a time.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Creates a file in the folder `dir`, and the folder if it is missing.
    ///
    /// The file sorts after those of earlier processes and discards their events from epoch `first`
    /// on, so that a resumed run is one curve.
    ///
    /// # Errors
    ///
    /// The folder or file cannot be created or written.
    pub fn create(dir: &Path, first: u32) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let now = seconds();
        let path = dir.join(next_name(dir, now as u64)?);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        let mut events = Self { file };
        events.append(&opening(now, first))?;
        Ok(events)
    }

    /// Appends an epoch.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn add(&mut self, row: &EpochRow, timing: &TimingRow) -> io::Result<()> {
        let record = record(&epoch(seconds(), row, timing));
        self.append(&record)
    }

    /// Uses one write call, so that readers rarely see a partial record.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

fn seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a name that sorts after all existing ones, even if the clock was set back. Readers use
/// files in the order of their names.
fn next_name(dir: &Path, now: u64) -> io::Result<String> {
    let (mut time, mut count) = (now, 0);
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        count += 1;
        let number = rest.split('.').next().and_then(|text| text.parse().ok());
        time = time.max(number.unwrap_or(0));
    }
    Ok(format!("{PREFIX}{time:010}.{count:06}.rgby"))
}

/// Returns the first two records of a file: version and session start.
fn opening(wall_time: f64, first: u32) -> Vec<u8> {
    let mut version = event(wall_time, 0);
    bytes_field(&mut version, 3, VERSION.as_bytes());
    // SessionLog.status = START.
    let mut start = event(wall_time, first);
    bytes_field(&mut start, 7, &[1 << 3, 1]);
    [record(&version), record(&start)].concat()
}

/// Encodes an `Event` with the scalars of an epoch.
fn epoch(wall_time: f64, row: &EpochRow, timing: &TimingRow) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars(row, timing) {
        let mut scalar = Vec::new();
        bytes_field(&mut scalar, 1, tag.as_bytes());
        // Summary.Value.simple_value is a float32.
        scalar.push(2 << 3 | 5);
        scalar.extend_from_slice(&(value as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &scalar);
    }
    let mut event = event(wall_time, row.epoch);
    bytes_field(&mut event, 5, &summary);
    event
}

/// Encodes an `Event` with `wall_time` and `step`.
fn event(wall_time: f64, step: u32) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&wall_time.to_le_bytes());
    // proto3 writers omit fields that are zero.
    if step > 0 {
        event.push(2 << 3);
        varint(&mut event, u64::from(step));
    }
    event
}

/// Appends a field of bytes, text or a message. Fields up to 15 have a key of one byte.
fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Encodes a `TFRecord`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// Returns the masked CRC-32C of `TFRecord`. Masking keeps the checksum of data that contains
/// checksums well distributed.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same events by `TensorBoard`'s own writer (`tests/golden/event_file.py`).
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/event_file.tfevents");

    fn rows() -> (EpochRow, TimingRow) {
        let row = EpochRow {
            epoch: 300,
            train_loss: 0.25,
            valid_loss: Some(0.1),
            f1_mean: 0.4382,
            f1_std: 0.3,
            f1_min: 0.0,
            f1_max: 1.0,
            lr: 1e-4,
        };
        let timing = TimingRow {
            epoch: 300,
            seconds: 81.5,
            images_per_s: 12.25,
            waited: 0.5,
        };
        (row, timing)
    }

    #[test]
    fn bytes_match_tensorboards_writer() {
        let (row, timing) = rows();
        let mut bytes = opening(1_500_000_000.25, 300);
        bytes.extend(record(&epoch(1_500_000_060.5, &row, &timing)));
        assert_eq!(bytes, GOLDEN);
    }

    #[test]
    fn omits_a_missing_validation_loss() {
        let (row, timing) = rows();
        let with = epoch(0.0, &row, &timing);
        let without = EpochRow {
            valid_loss: None,
            ..row
        };
        let without = epoch(0.0, &without, &timing);
        let has_scalar = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("loss/validation");
        assert!(has_scalar(&with) && !has_scalar(&without));
    }

    #[test]
    fn names_ascend_if_the_clock_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for now in [1_500_000_000, 1_500_000_000, 1_400_000_000, 1_600_000_000] {
            let name = next_name(dir.path(), now).unwrap();
            fs::write(dir.path().join(&name), "").unwrap();
            names.push(name);
        }
        assert!(names.is_sorted(), "{names:?}");
        names.dedup();
        assert_eq!(names.len(), 4);
    }
}
