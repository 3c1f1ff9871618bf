//! Bounded decoding of one image file's bytes into one gray plane.

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

/// What an image may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest width and height in pixels.
    pub max_side: u32,
    /// Most bytes that the decoded image may take, with all its colours and its full bit depth.
    pub max_bytes: u64,
    /// Most bytes that the encoded image may have.
    pub max_file_bytes: u64,
}

impl Default for DecodeLimits {
    /// 16,384 pixels a side, 1 GiB decoded, 512 MiB encoded.
    fn default() -> Self {
        Self {
            max_side: 16_384,
            max_bytes: 1 << 30,
            max_file_bytes: 512 << 20,
        }
    }
}

impl DecodeLimits {
    /// Refuses a file that is empty or too large.
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

    /// Refuses an image that claims too much, or nothing.
    fn check(&self, width: u32, height: u32, bytes: u64) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::Damaged("it has no pixels".into()));
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

    /// Room for the decoder's own buffers beside the image: a TIFF strip, a JPEG's coefficients.
    fn decoder_bytes(&self) -> u64 {
        self.max_bytes.saturating_mul(2)
    }
}

/// Why bytes did not become an image.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The bytes start like no known image format.
    #[error("not an image (its first bytes are those of no image format); give PNG, JPEG or TIFF")]
    NotAnImage,
    /// An image of a kind that is not read.
    #[error("{0} is not supported; convert it to 8 or 16 bit PNG, JPEG or TIFF")]
    Unsupported(String),
    /// More encoded bytes than [`DecodeLimits::max_file_bytes`].
    #[error("the file is larger than {limit} bytes, the most that is read")]
    FileTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Wider or higher than [`DecodeLimits::max_side`].
    #[error("the image claims {width}×{height} pixels; at most {limit} a side are read")]
    TooLarge {
        /// Width in pixels, as the header says.
        width: u32,
        /// Height in pixels, as the header says.
        height: u32,
        /// The limit in pixels.
        limit: u32,
    },
    /// Would take more memory than [`DecodeLimits::max_bytes`].
    #[error("the image would take more than {limit} bytes of memory, the most that is allowed")]
    TooManyBytes {
        /// The limit in bytes.
        limit: u64,
    },
    /// The image starts well but is cut short or broken.
    #[error("the image is truncated or damaged ({0}); fetch the file again")]
    Damaged(String),
    /// A file of several channels does not yield those that are wanted.
    #[error(transparent)]
    Channels(#[from] ChannelError),
}

/// Decodes a PNG, JPEG or TIFF (its first page) into one gray plane of 8 bits.
///
/// The format is told from the bytes. 16-bit values `v` become `round(v / 257)`. A colour image
/// stands for its brightest channel, the one of R, G, B with the largest sum, because public HPA
/// JPEGs are gray images tinted in their stain's colour; alpha is ignored.
///
/// # Errors
///
/// One variant of [`DecodeError`] for each way the bytes can be wrong. No more memory is taken
/// than `limits` allow for, whatever the header claims.
pub fn decode_plane(bytes: &[u8], limits: &DecodeLimits) -> Result<Plane, DecodeError> {
    let mut data = Vec::new();
    let (width, height) = append_plane(bytes, limits, &mut data)?;
    Ok(Plane {
        width,
        height,
        data,
    })
}

/// Decodes as [`decode_plane`] but puts the pixels behind those that `out` has, and returns width
/// and height. `out` stays as it was if there is an error.
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
            let size = guarded(|| append_other(bytes, format, limits, out))?;
            if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
                return Err(DecodeError::Damaged("its end marker is missing".into()));
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

/// What a decoder says of a file, or its panic as the file's fault: `tiff` 0.11 computes with the
/// sizes of tiles that a header claims, and with tiles of a plane, without minding overflow.
fn guarded<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    // What a broken-off decoder leaves behind the pixels before is cut off by the caller.
    catch_panic::expected(decode).unwrap_or_else(|_| {
        Err(DecodeError::Damaged(
            "no decoder can make sense of it".into(),
        ))
    })
}

/// JPEG and TIFF.
fn append_other(
    bytes: &[u8],
    format: ImageFormat,
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let explain = |error| explain(error, limits);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The sides are checked below, where the error can say what the header claims.
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

/// The `image` crate's limits; it sets none on the sides by itself.
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
        ImageError::IoError(_) => DecodeError::Damaged("it ends too early".into()),
        other => DecodeError::Damaged(other.to_string()),
    }
}

/// Whether a JPEG's picture data is closed by an end-of-image marker. The decoder fills what a
/// truncated JPEG lacks with gray and reports success, which would be a silent wrong input.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    // An embedded thumbnail has an end marker too: look only behind the first start of scan.
    // Segments before it state their length, so the walk cannot mistake contents for markers.
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

/// The colour channel with the largest sum, of pixels of `depth` interleaved values: gray (1),
/// gray and alpha (2), RGB (3) or RGBA (4). Of equal sums the first.
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

/// The 8-bit gray value of a 16-bit one, `round(v / 257)`: 65,535 becomes 255.
#[must_use]
pub fn gray_8_bit(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests;
