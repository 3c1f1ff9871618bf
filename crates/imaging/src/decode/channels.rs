//! Multi-channel TIFF files: one channel per page, or one per sample of the pixels of a single
//! page.

mod description;
mod error;
mod pages;

pub use error::ChannelError;
pub(super) use pages::{PLANAR_TILES, begins_with_planar_tiles};

use super::{DecodeError, DecodeLimits, catching_panics};
use crate::Planes;
use description::TiffDescription;
use pages::{PagePosition, TiffPages};

/// First bytes of TIFF and `BigTIFF` files, in both byte orders.
const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];

/// A channel of a file: its name, if the file has one, and the position of its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TiffChannel {
    name: Option<String>,
    position: PagePosition,
}

/// Decodes channels of a TIFF file into gray planes of 8 bits, in the order of `wanted`.
///
/// Each of `wanted` is a name in the file's OME-XML, compared without case, or a number from 0.
/// 16-bit values `v` become `round(v / 257)`, as in single-channel files. Other pages are not
/// decoded.
///
/// # Errors
///
/// The file is not a TIFF, is damaged, exceeds `limits`, contradicts its description, or lacks a
/// channel.
pub fn decode_channels(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
) -> Result<Planes, DecodeError> {
    let mut data = Vec::new();
    let (width, height) = append_channels(bytes, wanted, limits, &mut data)?;
    Ok(Planes {
        width,
        height,
        channels: wanted.len(),
        data,
    })
}

/// As [`decode_channels`], but appends the pixels to `out` and returns width and height. On error
/// `out` is unchanged.
pub(crate) fn append_channels(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let before = out.len();
    let size = catching_panics(|| append(bytes, wanted, limits, out));
    if size.is_err() {
        out.truncate(before);
    }
    size
}

fn append(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let mut pages = open(bytes, limits)?;
    let channels = channels(&mut pages)?;
    let positions: Result<Vec<PagePosition>, _> =
        wanted.iter().map(|name| find(&channels, name)).collect();
    let mut first = None;
    for position in positions? {
        let size = pages.append(position, out)?;
        let expected = *first.get_or_insert(size);
        if size != expected {
            return Err(ChannelError::PagesDiffer { size, expected }.into());
        }
    }
    Ok(first.unwrap_or_default())
}

/// Checks that a TIFF file has channels of these names or numbers, without decoding pixels.
///
/// # Errors
///
/// As [`decode_channels`], as far as headers and description show.
pub fn check_channels(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
) -> Result<(), DecodeError> {
    let channels = catching_panics(|| channels(&mut open(bytes, limits)?))?;
    let positions = wanted.iter().map(|name| find(&channels, name));
    Ok(positions.collect::<Result<Vec<_>, _>>().map(drop)?)
}

fn open<'a>(bytes: &'a [u8], limits: &'a DecodeLimits) -> Result<TiffPages<'a>, DecodeError> {
    limits.check_file(bytes)?;
    if !TIFF.iter().any(|start| bytes.starts_with(start)) {
        return Err(ChannelError::NotTiff.into());
    }
    TiffPages::open(bytes, limits)
}

/// Returns the channels of a file in order.
fn channels(pages: &mut TiffPages) -> Result<Vec<TiffChannel>, DecodeError> {
    let description = match pages.description()? {
        Some(text) => TiffDescription::read(&text)?,
        None => None,
    };
    let head = pages.head()?;
    let samples = usize::from(head.samples);
    if samples > 1 && pages.count() > 1 {
        return Err(ChannelError::Mixed {
            pages: pages.count(),
            samples,
        }
        .into());
    }
    let count = samples.max(pages.count());
    let position = |number| match samples {
        1 => PagePosition::of_page(number),
        _ => PagePosition::of_sample(number),
    };
    let Some(description) = description else {
        let unnamed = |number| TiffChannel {
            name: None,
            position: position(number),
        };
        return Ok((0..count).map(unnamed).collect());
    };
    let planes = description.planes(&head, count)?;
    let named = planes.into_iter().map(|(name, number)| TiffChannel {
        name,
        position: position(number),
    });
    Ok(named.collect())
}

/// Returns the position of the channel with this name, or else with this number.
fn find(channels: &[TiffChannel], wanted: &str) -> Result<PagePosition, ChannelError> {
    let wanted = wanted.trim();
    let lower = wanted.to_lowercase();
    let has_name = |channel: &&TiffChannel| {
        let name = channel.name.as_deref();
        name.is_some_and(|name| name.to_lowercase() == lower)
    };
    let mut named = channels.iter().filter(has_name);
    match (named.next(), named.next()) {
        (Some(channel), None) => return Ok(channel.position),
        (Some(_), Some(_)) => {
            return Err(ChannelError::Ambiguous {
                wanted: wanted.into(),
                found: list(channels),
            });
        }
        _ => {}
    }
    let number: Option<usize> = wanted.parse().ok();
    let channel = number.and_then(|number| channels.get(number));
    channel
        .map(|channel| channel.position)
        .ok_or_else(|| ChannelError::Missing {
            wanted: wanted.into(),
            found: list(channels),
        })
}

/// Lists the channels for an error message.
fn list(channels: &[TiffChannel]) -> String {
    const SHOWN: usize = 8;
    let first = channels.iter().take(SHOWN).enumerate();
    let mut text: Vec<String> = first
        .map(|(number, channel)| match &channel.name {
            Some(name) => format!("{number} `{name}`"),
            None => format!("{number} without a name"),
        })
        .collect();
    if channels.len() > SHOWN {
        text.push(format!("… {} in total", channels.len()));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests;
