//! numpy's `.npy`: a header with type and shape, then the numbers.
//!
//! The format is NEP 1, "A Simple File Format for `NumPy` Arrays". What the header says is held
//! against the file's length before anything is reserved for it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use half::f16;
use thiserror::Error;

use super::{ScoreRows, Scores, ScoresFault};

const MAGIC: &[u8] = b"\x93NUMPY";
/// numpy itself writes some hundred bytes.
const MAX_HEADER: usize = 1 << 16;
/// More than any set of samples has.
const MAX_BYTES: u64 = 8 << 30;

/// One way for a `.npy` file to be wrong.
#[derive(Debug, Error)]
pub enum NpyFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It begins otherwise.
    #[error("is not a .npy file; write it with `numpy.save` (an .npz archive holds several)")]
    NotNpy,
    /// It is larger than can be.
    #[error("is larger than {} GiB; give only the rows that have labels", MAX_BYTES >> 30)]
    TooLarge,
    /// It ends within its header, or the header is endless.
    #[error("its header is cut off or too long; write it anew with `numpy.save`")]
    Header,
    /// A header without one of the entries.
    #[error("its header has no `{0}`; write it anew with `numpy.save`")]
    HeaderEntry(&'static str),
    /// Other numbers than floats.
    #[error("holds `{0}`; probabilities are float16, 32 or 64: `array.astype(\"<f4\")`")]
    Type(String),
    /// Not a table.
    #[error("is of shape {0:?}; it should be [samples, classes]")]
    Shape(Vec<usize>),
    /// The header lies, or the end is missing.
    #[error(
        "its header stands for {wanted} bytes of numbers, but there are {found}; it was cut off or \
         damaged, write it anew"
    )]
    Length {
        /// As the header says.
        wanted: u128,
        /// As it is.
        found: usize,
    },
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

/// A table of numbers.
struct NpyArray {
    /// Rows and columns; there is a column.
    shape: [usize; 2],
    /// Row by row.
    values: Vec<f32>,
}

fn read_array(path: &Path) -> Result<NpyArray, NpyFault> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
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
        // Column by column.
        "True" => (0..rows * columns)
            .map(|at| values[at % columns * rows + at / columns])
            .collect(),
        _ => return Err(NpyFault::HeaderEntry("fortran_order")),
    };
    Ok(NpyArray { shape, values })
}

/// The header's text, and the numbers.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), NpyFault> {
    let after = bytes.strip_prefix(MAGIC).ok_or(NpyFault::NotNpy)?;
    // Version 1 has a length of two bytes, later ones of four.
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

/// What stands behind `'key':`, up to the next comma that is not in brackets.
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
