//! What a TIFF file's description says of its channels: OME-XML, or the lines of `ImageJ`.

use roxmltree::{Document, Node, ParsingOptions};

use super::ChannelError;
use super::pages::TiffHeader;

/// Most elements and texts of an OME-XML description.
const MAX_NODES: u32 = 100_000;
/// Most channels of a file.
const MAX_CHANNELS: u64 = 4096;

/// A description that says what the channels are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Width, height and type of the pixels, where they are said.
    pixels: Option<(u64, u64, String)>,
    /// What the number of channels is called.
    what: &'static str,
    /// The name of each channel, and the page that it is if that is said.
    channels: Vec<(Option<String>, Option<u64>)>,
}

impl Described {
    /// Reads a description; `None` if it is of another kind.
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
        let document = document.map_err(|error| wrong(&error.to_string()))?;
        let root = document.root_element();
        if root.tag_name().name() != "OME" {
            return Ok(None);
        }
        ome(root).map(Some)
    }

    /// Name and plane of each channel, once it is clear that a file of `count` planes whose first
    /// has this header holds what was described.
    pub(super) fn planes(
        self,
        head: &TiffHeader,
        count: usize,
    ) -> Result<Vec<(Option<String>, usize)>, ChannelError> {
        let differ = |what, says, has| Err(ChannelError::Contradiction { what, says, has });
        if self.channels.len() > count {
            return differ(
                self.what,
                self.channels.len().to_string(),
                count.to_string(),
            );
        }
        if let Some((width, height, kind)) = &self.pixels {
            let size = (u64::from(head.size.0), u64::from(head.size.1));
            if (*width, *height) != size {
                let has = format!("{}×{} pixels", size.0, size.1);
                return differ("SizeX×SizeY", format!("{width}×{height}"), has);
            }
            if *kind != format!("uint{}", head.bits) {
                let has = format!("{} bits a value without sign", head.bits);
                return differ("Type", kind.clone(), has);
            }
        }
        let mut places = Vec::with_capacity(self.channels.len());
        for (number, (name, page)) in self.channels.into_iter().enumerate() {
            // The values of a pixel are the channels in order; OME calls their page one plane.
            let plane = if head.samples > 1 {
                number
            } else {
                let page = page
                    .ok_or_else(|| wrong(&format!("no TiffData says where channel {number} is")))?;
                usize::try_from(page).unwrap_or(usize::MAX)
            };
            if plane >= count {
                let has = format!("{count} pages, counted from 0");
                return differ("IFD", plane.to_string(), has);
            }
            places.push((name, plane));
        }
        Ok(places)
    }
}

/// `key=value` lines. Their channels have no names; a stack must not be taken for channels.
fn image_j(text: &str) -> Result<Option<Described>, ChannelError> {
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
    Ok(Some(Described {
        pixels: None,
        what: "channels",
        channels: (0..limited(count)?)
            .map(|page| (None, Some(page)))
            .collect(),
    }))
}

fn ome(root: Node) -> Result<Described, ChannelError> {
    let images: Vec<Node> = children(root, "Image").collect();
    let [image] = images[..] else {
        return Err(ChannelError::Images(images.len()));
    };
    let pixels = children(image, "Pixels").next();
    let pixels = pixels.ok_or_else(|| wrong("its Image has no Pixels"))?;
    let size = |name| number(pixels, name)?.ok_or_else(|| wrong(&format!("Pixels has no {name}")));
    no_stack(size("SizeZ")?, size("SizeT")?)?;
    let count = limited(size("SizeC")?)?;
    let kind = pixels.attribute("Type").unwrap_or_default().to_owned();
    let names = names(pixels, count)?;
    let pages = pages(root, pixels, count)?;
    Ok(Described {
        pixels: Some((size("SizeX")?, size("SizeY")?, kind)),
        what: "SizeC",
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
    Err(wrong(&format!("{count} channels")))
}

/// The name of each of `count` channels. A `Channel` of several samples stands for as many.
fn names(pixels: Node, count: u64) -> Result<Vec<Option<String>>, ChannelError> {
    let mut names = Vec::new();
    for channel in children(pixels, "Channel") {
        let samples = number(channel, "SamplesPerPixel")?.unwrap_or(1);
        let room = count - names.len() as u64;
        if samples == 0 || samples > room {
            return Err(ChannelError::Contradiction {
                what: "SizeC",
                says: count.to_string(),
                has: "more of them by its Channel elements".into(),
            });
        }
        let name = channel.attribute("Name").map(str::trim);
        let name = name.filter(|name| samples == 1 && !name.is_empty());
        names.resize(names.len() + samples as usize, name.map(str::to_owned));
    }
    names.resize(count as usize, None);
    Ok(names)
}

/// The page of each of `count` channels, as the `TiffData` elements say; without those, pages are
/// in the channels' order.
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
                what: "by TiffData that there is channel",
                says: first.saturating_add(length).saturating_sub(1).to_string(),
                has: format!("channels 0 to {}, by SizeC", count - 1),
            });
        }
        if lies_elsewhere(root, block) {
            return Err(ChannelError::OtherFile(first));
        }
        for step in 0..length {
            let channel = first + step;
            let page = page.unwrap_or(0).saturating_add(step);
            // Also keeps a long list of blocks from taking long.
            if pages[channel as usize].replace(page).is_some() {
                return Err(wrong(&format!(
                    "two TiffData say where channel {channel} is"
                )));
            }
        }
    }
    Ok(pages)
}

/// Whether a block names another file: by its UUID, since files are renamed.
fn lies_elsewhere(root: Node, block: Node) -> bool {
    let this = root.attribute("UUID").map(str::trim);
    let that = children(block, "UUID").next().and_then(|uuid| uuid.text());
    that.is_some_and(|that| this.is_some_and(|this| this != that.trim()))
}

/// The children of this name, whatever their namespace: it differs with OME's versions.
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
        .map_err(|_| wrong(&format!("{name} is `{text}`, which is no count")))
}

fn wrong(reason: &str) -> ChannelError {
    ChannelError::Description(reason.into())
}
