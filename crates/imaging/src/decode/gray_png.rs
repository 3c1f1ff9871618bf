//! The usual PNG, 8-bit gray and not interlaced, in less time than the `png` crate takes.
//!
//! The crate's filters wait for the pixel to the left; here two rows are undone side by side, so
//! that one is worked on while the other waits. Whatever is unusual or wrong is left to the crate.

use fdeflate::Decompressor;

use super::DecodeLimits;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Behind width and height: 8 bits, gray, the only compression, the only filters, no interlacing.
const KIND: &[u8] = &[8, 0, 0, 0, 0];
/// No deflate stream becomes more than this many times as long.
const MOST_INFLATION: usize = 1032;
/// Room behind the pixels, so that the end of the stream is met.
const SLACK: usize = 16;
const AVERAGE: u8 = 3;
const PAETH: u8 = 4;

/// Puts the pixels behind those of `out` and returns width and height. `None` if the file is of
/// another kind or not as it should be; then `out` holds more than before.
pub(super) fn append(bytes: &[u8], limits: &DecodeLimits, out: &mut Vec<u8>) -> Option<(u32, u32)> {
    let mut chunks = Chunks(bytes.strip_prefix(SIGNATURE)?);
    let (b"IHDR", header) = chunks.next()? else {
        return None;
    };
    let (width, rest) = header.split_first_chunk()?;
    let (height, KIND) = rest.split_first_chunk()? else {
        return None;
    };
    let size = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
    let (width, height) = (size.0 as usize, size.1 as usize);
    let len = width.checked_mul(height)?;
    limits.check(size.0, size.1, len as u64).ok()?;
    let filtered = len + height;
    if filtered / MOST_INFLATION > bytes.len() {
        return None;
    }
    // The filtered rows lie behind the pixels until those are there.
    let start = out.len();
    out.resize(start + len + filtered + SLACK, 0);
    let (pixels, rows) = out[start..].split_at_mut(len);
    inflate(chunks, rows).filter(|&found| found == filtered)?;
    unfilter(&rows[..filtered], pixels, width)?;
    out.truncate(start + len);
    Some(size)
}

/// The chunks of a PNG: name and contents. It ends at the first that is cut short or has a wrong
/// CRC.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, rest) = rest.split_at_checked(length.checked_add(4)?)?;
        let (crc, rest) = rest.split_first_chunk()?;
        self.0 = rest;
        let sound = crc32fast::hash(chunk) == u32::from_be_bytes(*crc);
        sound.then(|| chunk.split_first_chunk()).flatten()
    }
}

/// Inflates the chunks that hold the pixels and returns how many bytes there are; checks that they
/// are followed by another sound chunk.
fn inflate<'a>(
    chunks: impl Iterator<Item = (&'a [u8; 4], &'a [u8])>,
    out: &mut [u8],
) -> Option<usize> {
    let mut inflater = Decompressor::new();
    let (mut filled, mut started) = (0, false);
    for (name, mut data) in chunks {
        match name {
            b"IDAT" => {
                started = true;
                while !data.is_empty() {
                    let (read, written) = inflater.read(data, out, filled, false).ok()?;
                    if read + written == 0 {
                        return None;
                    }
                    data = &data[read..];
                    filled += written;
                }
            }
            _ if inflater.is_done() => return Some(filled),
            // Animations are left to the crate; other chunks with a small first letter may be
            // passed over, but not among the pixels.
            b"acTL" => return None,
            [first, ..] if first.is_ascii_lowercase() && !started => {}
            _ => return None,
        }
    }
    None
}

/// Undoes the filters: `rows`, each behind the number of its filter, become `pixels`.
fn unfilter(rows: &[u8], pixels: &mut [u8], width: usize) -> Option<()> {
    let mut rows = rows.chunks_exact(width + 1).peekable();
    let zeros = vec![0; width];
    let (mut above, mut rest) = (&zeros[..], pixels);
    while let Some([filter, row @ ..]) = rows.next() {
        let (pixels, below) = rest.split_at_mut(width);
        let waits = |filter: &u8| matches!(*filter, AVERAGE | PAETH);
        let next = rows.next_if(|next| waits(filter) && waits(&next[0]));
        if let Some([next, second @ ..]) = next {
            let (pixels_below, below) = below.split_at_mut(width);
            let pair = [row, second];
            let targets = [&mut *pixels, &mut *pixels_below];
            match (*filter, *next) {
                (AVERAGE, AVERAGE) => two_rows((average, average), above, pair, targets),
                (AVERAGE, _) => two_rows((average, paeth), above, pair, targets),
                (_, AVERAGE) => two_rows((paeth, average), above, pair, targets),
                _ => two_rows((paeth, paeth), above, pair, targets),
            }
            (above, rest) = (pixels_below, below);
        } else {
            one_row(*filter, above, row, pixels)?;
            (above, rest) = (pixels, below);
        }
    }
    Some(())
}

fn one_row(filter: u8, above: &[u8], row: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut left, mut corner) = (0, 0);
    let all = out.iter_mut().zip(row).zip(above);
    match filter {
        0 => out.copy_from_slice(row),
        1 => all.for_each(|((out, x), _)| {
            left = x.wrapping_add(left);
            *out = left;
        }),
        2 => all.for_each(|((out, x), above)| *out = x.wrapping_add(*above)),
        AVERAGE => all.for_each(|((out, x), above)| {
            left = x.wrapping_add(average(left, *above, 0));
            *out = left;
        }),
        PAETH => all.for_each(|((out, x), above)| {
            left = x.wrapping_add(paeth(left, *above, corner));
            corner = *above;
            *out = left;
        }),
        _ => return None,
    }
    Some(())
}

/// Two rows at once: the lower one stays a pixel behind the upper one, whose pixels it needs.
/// Each pair of filters has a loop of its own.
#[inline]
fn two_rows(
    (upper, lower): (impl Fn(u8, u8, u8) -> u8, impl Fn(u8, u8, u8) -> u8),
    above: &[u8],
    rows: [&[u8]; 2],
    [top, bottom]: [&mut [u8]; 2],
) {
    let width = above.len();
    let rows = rows.map(|row| &row[..width]);
    let (top, bottom) = (&mut top[..width], &mut bottom[..width]);
    let mut corner = above[0];
    let mut left = rows[0][0].wrapping_add(upper(0, corner, 0));
    top[0] = left;
    let (mut lower_left, mut lower_corner) = (0, 0);
    for x in 1..width {
        let value = rows[0][x].wrapping_add(upper(left, above[x], corner));
        lower_left = rows[1][x - 1].wrapping_add(lower(lower_left, left, lower_corner));
        top[x] = value;
        bottom[x - 1] = lower_left;
        (corner, lower_corner, left) = (above[x], left, value);
    }
    bottom[width - 1] = rows[1][width - 1].wrapping_add(lower(lower_left, left, lower_corner));
}

#[inline]
fn average(left: u8, above: u8, _corner: u8) -> u8 {
    u16::midpoint(left.into(), above.into()) as u8
}

/// Of the three the nearest to left + above − corner, told by comparisons alone (as `stb_image`
/// does, by whose words it equals the definition).
#[inline]
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let [left, above, corner] = [left, above, corner].map(i16::from);
    let (low, high) = (left.min(above), left.max(above));
    let threshold = 3 * corner - (left + above);
    let inner = if high <= threshold { low } else { corner };
    (if threshold <= low { high } else { inner }) as u8
}

#[cfg(test)]
mod tests;
