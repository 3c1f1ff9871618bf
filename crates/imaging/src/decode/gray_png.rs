//! Fast decoder of the most common PNG: 8-bit gray, not interlaced.
//!
//! It was measured against the `png` crate and kept because it is faster. There, each pixel of a
//! filtered row waits for the pixel to its left; here, two rows are processed in parallel. Other
//! kinds and damaged files are left to the crate.

use fdeflate::Decompressor;

use super::DecodeLimits;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Header after width and height: 8 bits, gray, deflate, adaptive filters, not interlaced.
const KIND: &[u8] = &[8, 0, 0, 0, 0];
/// Maximum expansion factor of a deflate stream.
const MAX_INFLATION: usize = 1032;
/// Spare bytes after the pixels, so that the decompressor reaches the end of the stream.
const SLACK: usize = 16;
const AVERAGE: u8 = 3;
const PAETH: u8 = 4;

/// Appends the pixels to `out` and returns width and height. Returns `None` for other kinds and for
/// damaged files; `out` may then have grown.
pub(super) fn append(bytes: &[u8], limits: &DecodeLimits, out: &mut Vec<u8>) -> Option<(u32, u32)> {
    let mut chunks = PngChunks(bytes.strip_prefix(SIGNATURE)?);
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
    if filtered / MAX_INFLATION > bytes.len() {
        return None;
    }
    // The filtered rows are stored after the pixels and truncated at the end.
    let start = out.len();
    out.resize(start + len + filtered + SLACK, 0);
    let (pixels, rows) = out[start..].split_at_mut(len);
    inflate(chunks, rows).filter(|&found| found == filtered)?;
    unfilter(&rows[..filtered], pixels, width)?;
    out.truncate(start + len);
    Some(size)
}

/// Iterates over the chunks of a PNG: name and data. Ends at the first truncated chunk or wrong
/// CRC.
struct PngChunks<'a>(&'a [u8]);

impl<'a> Iterator for PngChunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, rest) = rest.split_at_checked(length.checked_add(4)?)?;
        let (crc, rest) = rest.split_first_chunk()?;
        self.0 = rest;
        let valid = crc32fast::hash(chunk) == u32::from_be_bytes(*crc);
        valid.then(|| chunk.split_first_chunk()).flatten()
    }
}

/// Inflates the `IDAT` chunks and returns the number of bytes. Returns `None` unless a valid chunk
/// follows them.
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
            // Animations are left to the crate. Other chunks with a lower-case first letter are
            // optional and are skipped, but not between pixels.
            b"acTL" => return None,
            [first, ..] if first.is_ascii_lowercase() && !started => {}
            _ => return None,
        }
    }
    None
}

/// Reverses the filters. Each of `rows` starts with the number of its filter.
fn unfilter(rows: &[u8], pixels: &mut [u8], width: usize) -> Option<()> {
    let mut rows = rows.chunks_exact(width + 1).peekable();
    let zeros = vec![0; width];
    let (mut above, mut rest) = (&zeros[..], pixels);
    while let Some([filter, row @ ..]) = rows.next() {
        let (pixels, below) = rest.split_at_mut(width);
        let is_slow = |filter: &u8| matches!(*filter, AVERAGE | PAETH);
        let next = rows.next_if(|next| is_slow(filter) && is_slow(&next[0]));
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

/// Reverses the filters of two rows in one loop. The lower row is one pixel behind the upper row,
/// whose pixels it needs. Each pair of filters is compiled to its own loop.
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

/// Returns the value nearest to left + above − corner, the PNG specification's Paeth predictor. It
/// uses comparisons only, like `stb_image`, which documents that this equals the definition.
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
