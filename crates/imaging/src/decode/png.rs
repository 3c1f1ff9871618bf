//! PNG, decoded with the `png` crate directly: through `image` it would skip the pixels' checksum.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{DecodeError, DecodeLimits, brightest, gray_8_bit};

/// Appends the gray pixels to `out` and returns width and height. On error `out` may have grown.
pub(super) fn append(
    bytes: &[u8],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let explain = |error| explain(error, limits);
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits {
        bytes: usize::try_from(limits.decoder_bytes()).unwrap_or(usize::MAX),
    });
    // Expands palettes to colours, and 1, 2 and 4 bits to 8.
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(explain)?;
    let (width, height) = (header.width, header.height);
    limits.check(width, height, 0)?;
    let mut reader = decoder.read_info().map_err(explain)?;
    let len = reader.output_buffer_size().unwrap_or(usize::MAX);
    limits.check(width, height, len as u64)?;
    let (colour, depth) = reader.output_color_type();
    if (colour, depth) == (ColorType::Grayscale, BitDepth::Eight) {
        let start = out.len();
        out.resize(start + len, 0);
        reader.next_frame(&mut out[start..]).map_err(explain)?;
        return Ok((width, height));
    }
    let mut pixels = vec![0; len];
    reader.next_frame(&mut pixels).map_err(explain)?;
    if depth == BitDepth::Sixteen {
        let pairs = pixels.as_chunks::<2>().0.iter();
        let values: Vec<u16> = pairs.map(|pair| u16::from_be_bytes(*pair)).collect();
        let brightest = brightest(&values, colour.samples());
        out.extend(brightest.into_iter().map(gray_8_bit));
    } else {
        out.extend(brightest(&pixels, colour.samples()));
    }
    Ok((width, height))
}

fn explain(error: DecodingError, limits: &DecodeLimits) -> DecodeError {
    match error {
        DecodingError::LimitsExceeded => DecodeError::TooManyBytes {
            limit: limits.max_bytes,
        },
        DecodingError::IoError(_) => DecodeError::Damaged("the file ends too early".into()),
        other => DecodeError::Damaged(other.to_string()),
    }
}
