//! `NumPy`'s `.npy` format: a header with type and shape, then the values.
//!
//! The format is NEP 1, "A Simple File Format for `NumPy` Arrays". The header is checked against
//! the length of the file before memory is allocated.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use half::f16;
use thiserror::Error;

use super::{ScoreRows, Scores, ScoresFault};

const MAGIC: &[u8] = b"\x93NUMPY";
/// `NumPy` writes a few hundred bytes.
const MAX_HEADER: usize = 1 << 16;
/// More than any data set needs.
const MAX_BYTES: u64 = 8 << 30;

/// Why a `.npy` file is invalid.
#[derive(Debug, Error)]
pub enum NpyFault {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error(
        "is not a .npy file\nhint: write it with `numpy.save`; .npz archives are not supported"
    )]
    NotNpy,
    #[error("is larger than {} GiB\nhint: keep only the rows with labels", MAX_BYTES >> 30)]
    TooLarge,
    /// The header is truncated or too long.
    #[error("the header is truncated or too long\nhint: write it again with `numpy.save`")]
    Header,
    #[error("the header has no valid `{0}`\nhint: write it again with `numpy.save`")]
    HeaderEntry(&'static str),
    #[error(
        "has the type `{0}`\nhint: convert to float16, 32 or 64, such as `array.astype(\"<f4\")`"
    )]
    Type(String),
    #[error("has the shape {0:?} instead of [samples, classes]")]
    Shape(Vec<usize>),
    /// The length of the file contradicts the header, all in bytes.
    #[error(
        "the header describes {wanted} bytes of values, but the file has {found}\nhint: the file \
         is truncated or damaged, write it again"
    )]
    Length { wanted: u128, found: usize },
}

pub(super) fn read(
    path: &Path,
    ids_file: &Path,
    ids: &[String],
    classes: Option<&[String]>,
) -> Result<Scores, ScoresFault> {
    let array = read_array(path)?;
    let [count, width] = array.shape;
    if ids.len() != count {
        return Err(ScoresFault::IdCount {
            rows: count,
            ids: ids.len(),
            ids_file: ids_file.to_owned(),
        });
    }
    let columns = (0..width).map(|column| column.to_string()).collect();
    let mut rows = ScoreRows::new(columns, classes)?;
    for (number, (id, row)) in ids.iter().zip(array.values.chunks(width)).enumerate() {
        rows.push(id, Some(row), &|| format!("row {number}"))?;
    }
    rows.finish()
}

/// A matrix in row-major order.
struct NpyArray {
    /// Rows and columns, at least one column.
    shape: [usize; 2],
    values: Vec<f32>,
}

fn read_array(path: &Path) -> Result<NpyArray, NpyFault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(NpyFault::Io)?;
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(NpyFault::Io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(NpyFault::TooLarge);
    }
    let (header, data) = split(&bytes)?;
    let kind = entry(header, "descr")?;
    let (size, float): (usize, fn(&[u8]) -> f32) = match kind.trim_matches(['\'', '"']) {
        "<f2" => (2, |b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
        "<f4" => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        "<f8" => (8, |b| {
            f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
        }),
        _ => return Err(NpyFault::Type(kind.to_owned())),
    };
    let shape = shape(entry(header, "shape")?)?;
    let sides = shape.iter().map(|side| *side as u128);
    let wanted = sides.fold(size as u128, u128::saturating_mul);
    if wanted != data.len() as u128 {
        return Err(NpyFault::Length {
            wanted,
            found: data.len(),
        });
    }
    let values: Vec<f32> = data.chunks_exact(size).map(float).collect();
    let [rows, columns] = shape;
    let values = match entry(header, "fortran_order")? {
        "False" => values,
        // Column-major order.
        "True" => (0..rows * columns)
            .map(|at| values[at % columns * rows + at / columns])
            .collect(),
        _ => return Err(NpyFault::HeaderEntry("fortran_order")),
    };
    Ok(NpyArray { shape, values })
}

/// Splits a file into the text of its header and its values.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), NpyFault> {
    let after = bytes.strip_prefix(MAGIC).ok_or(NpyFault::NotNpy)?;
    // The header length has two bytes in version 1 and four in later versions.
    let (start, length) = match after {
        [1, _, a, b, ..] => (4, u32::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([*a, *b, *c, *d])),
        _ => return Err(NpyFault::Header),
    };
    let length = length as usize;
    let rest = &after[start..];
    if length > MAX_HEADER || length > rest.len() {
        return Err(NpyFault::Header);
    }
    let (header, data) = rest.split_at(length);
    let header = std::str::from_utf8(header).map_err(|_| NpyFault::Header)?;
    Ok((header, data))
}

/// Returns the value after `'key':`, up to the next comma outside of brackets.
fn entry<'a>(header: &'a str, key: &'static str) -> Result<&'a str, NpyFault> {
    let quoted = format!("'{key}':");
    let at = header.find(&quoted).ok_or(NpyFault::HeaderEntry(key))?;
    let rest = header[at + quoted.len()..].trim_start();
    let mut depth = 0;
    let ends = |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        depth == 0 && matches!(c, ',' | '}')
    };
    let end = rest.find(ends).ok_or(NpyFault::HeaderEntry(key))?;
    Ok(rest[..end].trim_end())
}

fn shape(text: &str) -> Result<[usize; 2], NpyFault> {
    let inner = text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'));
    let inner = inner.ok_or(NpyFault::HeaderEntry("shape"))?;
    let sides = inner
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty());
    let sides: Result<Vec<usize>, _> = sides.map(str::parse).collect();
    let sides = sides.map_err(|_| NpyFault::HeaderEntry("shape"))?;
    match sides[..] {
        [rows, columns] if columns > 0 => Ok([rows, columns]),
        _ => Err(NpyFault::Shape(sides)),
    }
}
