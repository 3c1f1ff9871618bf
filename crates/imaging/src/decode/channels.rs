//! Several channels of one sample in one TIFF file: a channel a page, or a channel a sample of the
//! only page's pixels.

mod description;
mod error;
mod pages;

pub use error::ChannelError;
pub(super) use pages::{PLANAR_TILES, begins_with_planar_tiles};

use super::{DecodeError, DecodeLimits, guarded};
use crate::Planes;
use description::Described;
use pages::{PagePosition, Pages};

/// How TIFF and `BigTIFF` files begin, in both byte orders.
const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];

/// A channel of a file: its name, if the file says any, and where its pixels are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Channel {
    name: Option<String>,
    place: PagePosition,
}

/// Decodes channels of a TIFF file into gray planes of 8 bits, in the order of `wanted`.
///
/// A channel is wanted by its name in the file's OME-XML, whatever its case, or by its number from
/// 0. 16-bit values `v` become `round(v / 257)`, as in a file of one channel. Only pages that are
/// wanted are decoded.
///
/// # Errors
///
/// The file is no TIFF, is damaged, exceeds `limits`, contradicts its own description, or lacks a
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

/// As [`decode_channels`], but puts the pixels behind those that `out` has, and returns width and
/// height. `out` stays as it was if there is an error.
pub(crate) fn append_channels(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    let before = out.len();
    let size = guarded(|| append(bytes, wanted, limits, out));
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
    let places: Result<Vec<PagePosition>, _> =
        wanted.iter().map(|name| place(&channels, name)).collect();
    let mut first = None;
    for place in places? {
        let size = pages.append(place, out)?;
        let expected = *first.get_or_insert(size);
        if size != expected {
            return Err(ChannelError::PagesDiffer { size, expected }.into());
        }
    }
    Ok(first.unwrap_or_default())
}

/// Checks that a TIFF file has channels of these names or numbers; no pixel is decoded.
///
/// # Errors
///
/// As [`decode_channels`], as far as headers and description tell.
pub fn check_channels(
    bytes: &[u8],
    wanted: &[&str],
    limits: &DecodeLimits,
) -> Result<(), DecodeError> {
    let channels = guarded(|| channels(&mut open(bytes, limits)?))?;
    let places = wanted.iter().map(|name| place(&channels, name));
    Ok(places.collect::<Result<Vec<_>, _>>().map(drop)?)
}

fn open<'a>(bytes: &'a [u8], limits: &'a DecodeLimits) -> Result<Pages<'a>, DecodeError> {
    limits.check_file(bytes)?;
    if !TIFF.iter().any(|start| bytes.starts_with(start)) {
        return Err(ChannelError::NotTiff.into());
    }
    Pages::open(bytes, limits)
}

/// The channels of a file, in their order.
fn channels(pages: &mut Pages) -> Result<Vec<Channel>, DecodeError> {
    let described = match pages.description()? {
        Some(text) => Described::read(&text)?,
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
    let place = |number| match samples {
        1 => PagePosition::of_page(number),
        _ => PagePosition::of_sample(number),
    };
    let Some(described) = described else {
        let unnamed = |number| Channel {
            name: None,
            place: place(number),
        };
        return Ok((0..count).map(unnamed).collect());
    };
    let planes = described.planes(&head, count)?;
    let named = planes.into_iter().map(|(name, number)| Channel {
        name,
        place: place(number),
    });
    Ok(named.collect())
}

/// Where the channel is that has this name, or else this number.
fn place(channels: &[Channel], wanted: &str) -> Result<PagePosition, ChannelError> {
    let wanted = wanted.trim();
    let lower = wanted.to_lowercase();
    let has_name = |channel: &&Channel| {
        let name = channel.name.as_deref();
        name.is_some_and(|name| name.to_lowercase() == lower)
    };
    let mut named = channels.iter().filter(has_name);
    match (named.next(), named.next()) {
        (Some(channel), None) => return Ok(channel.place),
        (Some(_), Some(_)) => {
            return Err(ChannelError::Ambiguous {
                wanted: wanted.into(),
                found: listed(channels),
            });
        }
        _ => {}
    }
    let number: Option<usize> = wanted.parse().ok();
    let channel = number.and_then(|number| channels.get(number));
    channel
        .map(|channel| channel.place)
        .ok_or_else(|| ChannelError::Missing {
            wanted: wanted.into(),
            found: listed(channels),
        })
}

/// The channels for a message.
fn listed(channels: &[Channel]) -> String {
    const SHOWN: usize = 8;
    let shown = channels.iter().take(SHOWN).enumerate();
    let mut text: Vec<String> = shown
        .map(|(number, channel)| match &channel.name {
            Some(name) => format!("{number} `{name}`"),
            None => format!("{number} without a name"),
        })
        .collect();
    if channels.len() > SHOWN {
        text.push(format!("… {} in all", channels.len()));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests;
