//! A training run's course as `TensorBoard` reads it: an event file of scalars, one step an epoch.
//!
//! The file is a chain of `TFRecord`s (length, its checksum, data, its checksum), each an `Event`
//! message of TensorFlow's `event.proto`. Only the few fields below are ever written, so they are
//! encoded here. `TensorBoard` follows a growing file by its offset, which is why this one, unlike
//! all others, is added to and not replaced; a record cut short at its end is passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{EpochRow, TimingRow, scalars};

/// What event files' names begin with; readers look for it.
const PREFIX: &str = "events.out.tfevents.";
/// The version that lets a `SessionLog` take back what an earlier process wrote.
const VERSION: &str = "brain.Event:2";

/// An event file that grows by an epoch at a time.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins a file in the folder `dir`, which is made if it is not there. It sorts after those of
    /// earlier processes and takes back all that they said of epoch `first` and later ones, so that
    /// an interrupted run is one curve.
    ///
    /// # Errors
    ///
    /// The folder or file cannot be made or written.
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

    /// Adds an epoch.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn add(&mut self, row: &EpochRow, timing: &TimingRow) -> io::Result<()> {
        let record = record(&epoch(seconds(), row, timing));
        self.append(&record)
    }

    /// In one write, so that a reader hardly ever meets half a record.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

fn seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A name after all that are there, even if the clock was set back: readers go by their order.
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

/// The records that every file begins with.
fn opening(wall_time: f64, first: u32) -> Vec<u8> {
    let mut version = event(wall_time, 0);
    bytes_field(&mut version, 3, VERSION.as_bytes());
    // SessionLog.status = START.
    let mut start = event(wall_time, first);
    bytes_field(&mut start, 7, &[1 << 3, 1]);
    [record(&version), record(&start)].concat()
}

/// An `Event` with the scalars of an epoch.
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

/// `Event` with `wall_time` and `step`.
fn event(wall_time: f64, step: u32) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&wall_time.to_le_bytes());
    // Zero is what a reader takes a missing number for, and writers leave it out.
    if step > 0 {
        event.push(2 << 3);
        varint(&mut event, u64::from(step));
    }
    event
}

/// A field of bytes, text or a message. Fields up to 15 have a key of one byte.
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

/// A `TFRecord`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, turned and shifted, so that the checksum of data that holds checksums is a good one.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `TensorBoard`'s own writer makes of the same events (`tests/golden/event_file.py`).
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
    fn the_bytes_are_those_of_tensorboards_writer() {
        let (row, timing) = rows();
        let mut bytes = opening(1_500_000_000.25, 300);
        bytes.extend(record(&epoch(1_500_000_060.5, &row, &timing)));
        assert_eq!(bytes, GOLDEN);
    }

    #[test]
    fn without_a_validation_loss_there_is_no_such_scalar() {
        let (row, timing) = rows();
        let with = epoch(0.0, &row, &timing);
        let without = EpochRow {
            valid_loss: None,
            ..row
        };
        let without = epoch(0.0, &without, &timing);
        let named = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("loss/validation");
        assert!(named(&with) && !named(&without));
    }

    #[test]
    fn names_follow_each_other_though_the_clock_goes_back() {
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
