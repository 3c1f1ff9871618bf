//! Bounded decoding of image bytes into gray planes.

mod channels;
mod gray_png;
mod png;

pub(super) use channels::append_channels;
pub use channels::{ChannelError, check_channels, decode_channels};

use std::io::Cursor;

use image::error::LimitErrorKind;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use thiserror::Error;

use super::Plane;
use rgby_common::catch_panic;

/// Limits beyond which an image is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maximum width and height in pixels.
    pub max_side: u32,
    /// Maximum size of the decoded image in bytes, with all colours and its full bit depth.
    pub max_bytes: u64,
    /// Maximum size of the encoded image in bytes.
    pub max_file_bytes: u64,
}

impl Default for DecodeLimits {
    /// 16,384 pixels per side, 1 GiB decoded, 512 MiB encoded.
    fn default() -> Self {
        Self {
            max_side: 16_384,
            max_bytes: 1 << 30,
            max_file_bytes: 512 << 20,
        }
    }
}

impl DecodeLimits {
    /// Rejects empty and too large files.
    fn check_file(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if bytes.len() as u64 > self.max_file_bytes {
            return Err(DecodeError::FileTooLarge {
                limit: self.max_file_bytes,
            });
        }
        Ok(())
    }

    /// Rejects sizes from a header that are 0 or above the limits.
    fn check(&self, width: u32, height: u32, bytes: u64) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::Damaged("the image has no pixels".into()));
        }
        if width.max(height) > self.max_side {
            return Err(DecodeError::TooLarge {
                width,
                height,
                limit: self.max_side,
            });
        }
        if bytes > self.max_bytes {
            return Err(DecodeError::TooManyBytes {
                limit: self.max_bytes,
            });
        }
        Ok(())
    }

    /// Returns the limit including the decoder's buffers, such as a TIFF strip or JPEG
    /// coefficients.
    fn decoder_bytes(&self) -> u64 {
        self.max_bytes.saturating_mul(2)
    }
}

/// Why bytes cannot be decoded. Each text is one line.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    #[error("the file is empty")]
    Empty,
    #[error("not an image: the first bytes match no image format; use PNG, JPEG or TIFF")]
    NotAnImage,
    #[error("{0} is not supported; convert it to 8 or 16 bit PNG, JPEG or TIFF")]
    Unsupported(String),
    /// Above [`DecodeLimits::max_file_bytes`].
    #[error("the file is larger than the limit of {limit} bytes")]
    FileTooLarge { limit: u64 },
    /// Above [`DecodeLimits::max_side`], all in pixels.
    #[error("the image header claims {width}×{height} pixels; the limit is {limit} per side")]
    TooLarge { width: u32, height: u32, limit: u32 },
    /// Above [`DecodeLimits::max_bytes`].
    #[error("the decoded image is larger than the limit of {limit} bytes")]
    TooManyBytes { limit: u64 },
    /// The header is valid but the content is not.
    #[error("the image is truncated or damaged ({0}); fetch the file again")]
    Damaged(String),
    /// A multi-channel file lacks the required channels.
    #[error(transparent)]
    Channels(#[from] ChannelError),
}

/// Decodes a PNG, a JPEG or the first page of a TIFF into one gray plane of 8 bits.
///
/// The format is detected from the bytes. 16-bit values `v` become `round(v / 257)`. Of a colour
/// image, only the channel R, G or B with the largest sum is used. Public HPA JPEGs are gray images
/// tinted in their stain's colour. Alpha is ignored.
///
/// # Errors
///
/// [`DecodeError`]. The memory use stays within `limits` even if the header claims larger sizes.
pub fn decode_plane(bytes: &[u8], limits: &DecodeLimits) -> Result<Plane, DecodeError> {
    let mut data = Vec::new();
    let (width, height) = append_plane(bytes, limits, &mut data)?;
    Ok(Plane {
        width,
        height,
        data,
    })
}

/// As [`decode_plane`], but appends the pixels to `out` and returns width and height. On error
/// `out` is unchanged.
pub(super) fn append_plane(
    bytes: &[u8],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let before = out.len();
    let size = append(bytes, limits, out);
    if size.is_err() {
        out.truncate(before);
    }
    size
}

fn append(
    bytes: &[u8],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    limits.check_file(bytes)?;
    let format = image::guess_format(bytes).map_err(|_| DecodeError::NotAnImage)?;
    match format {
        ImageFormat::Png => {
            let before = out.len();
            gray_png::append(bytes, limits, out).map_or_else(
                || {
                    out.truncate(before);
                    png::append(bytes, limits, out)
                },
                Ok,
            )
        }
        ImageFormat::Tiff if channels::begins_with_planar_tiles(bytes) => {
            Err(DecodeError::Unsupported(channels::PLANAR_TILES.into()))
        }
        ImageFormat::Jpeg | ImageFormat::Tiff => {
            let size = catching_panics(|| append_jpeg_or_tiff(bytes, format, limits, out))?;
            if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
                return Err(DecodeError::Damaged("the end marker is missing".into()));
            }
            Ok(size)
        }
        other => {
            let name = other.extensions_str().first().copied();
            let name = name.unwrap_or("this format").to_uppercase();
            Err(DecodeError::Unsupported(name))
        }
    }
}

/// Calls a decoder and reports its panic as a damaged file: `tiff` 0.11 does not check tile sizes
/// from the header, or tiles of planar images, for overflow.
fn catching_panics<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    // The caller truncates what a panicking decoder appended.
    catch_panic::catch(decode)
        .unwrap_or_else(|_| Err(DecodeError::Damaged("the decoder failed".into())))
}

/// Decodes JPEG and TIFF with the `image` crate.
fn append_jpeg_or_tiff(
    bytes: &[u8],
    format: ImageFormat,
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let explain = |error| explain(error, limits);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The sides are checked below, where the error can contain the header's values.
    reader.limits(image_limits(limits, false));
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height, decoder.total_bytes())?;
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(DecodeError::Unsupported("an image of 32-bit floats".into()));
    }
    decoder
        .set_limits(image_limits(limits, true))
        .map_err(explain)?;
    if color == ColorType::L8 {
        let start = out.len();
        out.resize(start + decoder.total_bytes() as usize, 0);
        decoder.read_image(&mut out[start..]).map_err(explain)?;
    } else {
        let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
        out.extend(to_gray(&image)?);
    }
    Ok((width, height))
}

/// Returns limits for the `image` crate, whose default has none for the sides.
fn image_limits(limits: &DecodeLimits, sides: bool) -> image::Limits {
    let mut out = image::Limits::no_limits();
    out.max_alloc = Some(limits.decoder_bytes());
    if sides {
        out.max_image_width = Some(limits.max_side);
        out.max_image_height = Some(limits.max_side);
    }
    out
}

fn explain(error: ImageError, limits: &DecodeLimits) -> DecodeError {
    match error {
        ImageError::Limits(limit) if limit.kind() == LimitErrorKind::InsufficientMemory => {
            DecodeError::TooManyBytes {
                limit: limits.max_bytes,
            }
        }
        ImageError::Unsupported(what) => DecodeError::Unsupported(what.to_string()),
        ImageError::IoError(_) => DecodeError::Damaged("the file ends too early".into()),
        other => DecodeError::Damaged(other.to_string()),
    }
}

/// Returns whether the image data of a JPEG has an end-of-image marker. The decoder fills the
/// missing part of a truncated JPEG with gray and reports success, which would silently give a
/// wrong input.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    // An embedded thumbnail has an end marker too, so only bytes after the first start of scan
    // count. The segments before it have lengths, so their content is not read as markers.
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xFF => at += 1,
            0xDA => return bytes[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]),
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

fn to_gray(image: &DynamicImage) -> Result<Vec<u8>, DecodeError> {
    Ok(match image {
        DynamicImage::ImageLumaA8(i) => brightest(i.as_raw(), 2),
        DynamicImage::ImageRgb8(i) => brightest(i.as_raw(), 3),
        DynamicImage::ImageRgba8(i) => brightest(i.as_raw(), 4),
        DynamicImage::ImageLuma16(i) => all_to_8_bit(i.as_raw()),
        DynamicImage::ImageLumaA16(i) => all_to_8_bit(&brightest(i.as_raw(), 2)),
        DynamicImage::ImageRgb16(i) => all_to_8_bit(&brightest(i.as_raw(), 3)),
        DynamicImage::ImageRgba16(i) => all_to_8_bit(&brightest(i.as_raw(), 4)),
        other => {
            let what = format!("{:?} pixels", other.color());
            return Err(DecodeError::Unsupported(what));
        }
    })
}

/// Returns the colour channel with the largest sum, the first of equal ones. Pixels have `depth`
/// interleaved values: gray (1), gray and alpha (2), RGB (3) or RGBA (4).
fn brightest<T: Copy + Into<u64>>(pixels: &[T], depth: usize) -> Vec<T> {
    let channel = |c: usize| pixels.iter().skip(c).step_by(depth).copied();
    let sum = |c: usize| channel(c).map(Into::into).sum::<u64>();
    let colours = if depth < 3 { 1 } else { 3 };
    let best = (0..colours).rev().max_by_key(|&c| sum(c)).unwrap_or(0);
    channel(best).collect()
}

fn all_to_8_bit(values: &[u16]) -> Vec<u8> {
    values.iter().copied().map(gray_8_bit).collect()
}

/// Converts a 16-bit gray value to 8 bits, `round(v / 257)`: 65,535 becomes 255.
#[must_use]
pub fn gray_8_bit(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests;
