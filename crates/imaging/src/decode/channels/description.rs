//! Channels in the description of a TIFF file: OME-XML, or `ImageJ`'s key-value lines.

use roxmltree::{Document, Node, ParsingOptions};

use super::ChannelError;
use super::pages::TiffHeader;

/// Limit of elements and texts in an OME-XML description.
const MAX_NODES: u32 = 100_000;
/// Limit of channels per file.
const MAX_CHANNELS: u64 = 4096;

/// The channels according to a file's description.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TiffDescription {
    /// Width, height and type of the pixels, if given.
    pixels: Option<(u64, u64, String)>,
    /// Name of the channel count in this kind of description.
    count_key: &'static str,
    /// Name and page of each channel, where given.
    channels: Vec<(Option<String>, Option<u64>)>,
}

impl TiffDescription {
    /// Parses a description; `None` if it is of another kind.
    pub(super) fn read(text: &str) -> Result<Option<Self>, ChannelError> {
        let text = text.trim_end_matches('\0').trim();
        if text.starts_with("ImageJ=") {
            return image_j(text);
        }
        if !text.contains("<OME") && !text.contains(":OME") {
            return Ok(None);
        }
        let options = ParsingOptions {
            allow_dtd: false,
            nodes_limit: MAX_NODES,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options);
        let document = document.map_err(|error| invalid(&error.to_string()))?;
        let root = document.root_element();
        if root.tag_name().name() != "OME" {
            return Ok(None);
        }
        ome(root).map(Some)
    }

    /// Returns name and plane of each channel after checking the description against the file: its
    /// first header and its `count` planes.
    pub(super) fn planes(
        self,
        head: &TiffHeader,
        count: usize,
    ) -> Result<Vec<(Option<String>, usize)>, ChannelError> {
        let differ = |field, described, found| {
            Err(ChannelError::Contradiction {
                field,
                described,
                found,
            })
        };
        if self.channels.len() > count {
            return differ(
                self.count_key,
                self.channels.len().to_string(),
                count.to_string(),
            );
        }
        if let Some((width, height, kind)) = &self.pixels {
            let size = (u64::from(head.size.0), u64::from(head.size.1));
            if (*width, *height) != size {
                let found = format!("{}×{} pixels", size.0, size.1);
                return differ("SizeX×SizeY", format!("{width}×{height}"), found);
            }
            if *kind != format!("uint{}", head.bits) {
                let found = format!("unsigned values of {} bits", head.bits);
                return differ("Type", kind.clone(), found);
            }
        }
        let mut planes = Vec::with_capacity(self.channels.len());
        for (number, (name, page)) in self.channels.into_iter().enumerate() {
            // The samples of a pixel are the channels in order; OME describes their page as one
            // plane.
            let plane = if head.samples > 1 {
                number
            } else {
                let page =
                    page.ok_or_else(|| invalid(&format!("no TiffData for channel {number}")))?;
                usize::try_from(page).unwrap_or(usize::MAX)
            };
            if plane >= count {
                let found = format!("{count} pages, counted from 0");
                return differ("IFD", plane.to_string(), found);
            }
            planes.push((name, plane));
        }
        Ok(planes)
    }
}

/// Parses `key=value` lines. The channels have no names. Z or T stacks are rejected.
fn image_j(text: &str) -> Result<Option<TiffDescription>, ChannelError> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let found = lines.find(|(name, _)| *name == key);
        found.and_then(|(_, value)| value.trim().parse::<u64>().ok())
    };
    let (depth, time) = (value("slices"), value("frames"));
    no_stack(depth.unwrap_or(1), time.unwrap_or(1))?;
    let Some(count) = value("channels") else {
        return Ok(None);
    };
    Ok(Some(TiffDescription {
        pixels: None,
        count_key: "channels",
        channels: (0..limited(count)?)
            .map(|page| (None, Some(page)))
            .collect(),
    }))
}

fn ome(root: Node) -> Result<TiffDescription, ChannelError> {
    let images: Vec<Node> = children(root, "Image").collect();
    let [image] = images[..] else {
        return Err(ChannelError::Images(images.len()));
    };
    let pixels = children(image, "Pixels").next();
    let pixels = pixels.ok_or_else(|| invalid("Image has no Pixels"))?;
    let size =
        |name| number(pixels, name)?.ok_or_else(|| invalid(&format!("Pixels has no {name}")));
    no_stack(size("SizeZ")?, size("SizeT")?)?;
    let count = limited(size("SizeC")?)?;
    let kind = pixels.attribute("Type").unwrap_or_default().to_owned();
    let names = names(pixels, count)?;
    let pages = pages(root, pixels, count)?;
    Ok(TiffDescription {
        pixels: Some((size("SizeX")?, size("SizeY")?, kind)),
        count_key: "SizeC",
        channels: names.into_iter().zip(pages).collect(),
    })
}

fn no_stack(depth: u64, time: u64) -> Result<(), ChannelError> {
    if depth == 1 && time == 1 {
        return Ok(());
    }
    Err(ChannelError::Stack { depth, time })
}

fn limited(count: u64) -> Result<u64, ChannelError> {
    if (1..=MAX_CHANNELS).contains(&count) {
        return Ok(count);
    }
    Err(invalid(&format!("{count} channels")))
}

/// Returns the names of `count` channels. A `Channel` with several samples counts as several.
fn names(pixels: Node, count: u64) -> Result<Vec<Option<String>>, ChannelError> {
    let mut names = Vec::new();
    for channel in children(pixels, "Channel") {
        let samples = number(channel, "SamplesPerPixel")?.unwrap_or(1);
        let room = count - names.len() as u64;
        if samples == 0 || samples > room {
            return Err(ChannelError::Contradiction {
                field: "SizeC",
                described: count.to_string(),
                found: "more Channel elements".into(),
            });
        }
        let name = channel.attribute("Name").map(str::trim);
        let name = name.filter(|name| samples == 1 && !name.is_empty());
        names.resize(names.len() + samples as usize, name.map(str::to_owned));
    }
    names.resize(count as usize, None);
    Ok(names)
}

/// Returns the pages of `count` channels from the `TiffData` elements. Without such elements, the
/// pages are in the order of the channels.
fn pages(root: Node, pixels: Node, count: u64) -> Result<Vec<Option<u64>>, ChannelError> {
    let blocks: Vec<Node> = children(pixels, "TiffData").collect();
    if blocks.is_empty() {
        return Ok((0..count).map(Some).collect());
    }
    let mut pages = vec![None; count as usize];
    for block in blocks {
        let page = number(block, "IFD")?;
        let first = number(block, "FirstC")?.unwrap_or(0);
        let rest = count.saturating_sub(first);
        let length = match number(block, "PlaneCount")? {
            Some(length) => length,
            None if page.is_some() => 1,
            None => rest,
        };
        if first >= count || length > rest {
            return Err(ChannelError::Contradiction {
                field: "TiffData",
                described: format!("channel {}", first.saturating_add(length).saturating_sub(1)),
                found: format!("channels 0 to {} by SizeC", count - 1),
            });
        }
        if is_in_other_file(root, block) {
            return Err(ChannelError::OtherFile(first));
        }
        for step in 0..length {
            let channel = first + step;
            let page = page.unwrap_or(0).saturating_add(step);
            // Also bounds the time for a long list of blocks.
            if pages[channel as usize].replace(page).is_some() {
                return Err(invalid(&format!("two TiffData for channel {channel}")));
            }
        }
    }
    Ok(pages)
}

/// Returns whether a block refers to another file. Compares UUIDs, because files get renamed.
fn is_in_other_file(root: Node, block: Node) -> bool {
    let this = root.attribute("UUID").map(str::trim);
    let that = children(block, "UUID").next().and_then(|uuid| uuid.text());
    that.is_some_and(|that| this.is_some_and(|this| this != that.trim()))
}

/// Returns the children of this name in any namespace, because it differs between OME versions.
fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    let elements = node.children().filter(Node::is_element);
    elements.filter(move |child| child.tag_name().name() == name)
}

fn number(node: Node, name: &str) -> Result<Option<u64>, ChannelError> {
    let Some(text) = node.attribute(name) else {
        return Ok(None);
    };
    let parsed = text.trim().parse();
    parsed
        .map(Some)
        .map_err(|_| invalid(&format!("{name} is `{text}`, not a count")))
}

fn invalid(reason: &str) -> ChannelError {
    ChannelError::Description(reason.into())
}
