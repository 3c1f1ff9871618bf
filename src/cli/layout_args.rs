//! Options for the layout of images, shared by all commands that read them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::ensure;
use clap::Args;

use crate::data::{Images, Layout, Pattern};

/// Layout of the images in `--images` if they are not `<Id>_<stain>` files.
#[derive(Debug, Clone, Args)]
pub struct LayoutArgs {
    /// Regular expression for other file names
    ///
    /// It must match the whole name, or, if it contains a `/`, the whole path below --images. The
    /// group `channel` gives the channel, all other named groups form the id. Example:
    /// `(?<well>[A-P]\d\d)_s(?<site>\d)_w(?<channel>\d)\.tif`
    #[arg(long, value_name = "REGEX", requires = "images")]
    pub pattern: Option<Pattern>,
    /// Channel of a stain in the images; may be repeated [default: the stain's name]
    ///
    /// CHANNEL is the name or number (from 0) of a channel of a multi-channel TIFF, a value of the
    /// pattern's group `channel`, or a column of a manifest.
    #[arg(id = "channel", long = "channel", value_name = "STAIN=CHANNEL", value_parser = pair, requires = "images")]
    pub channels: Vec<(String, String)>,
}

impl LayoutArgs {
    /// Returns the images in a folder or manifest with this layout.
    ///
    /// # Errors
    ///
    /// A stain has two channels.
    pub fn of(&self, images: &Path) -> anyhow::Result<Images> {
        let mut channels = BTreeMap::new();
        for (stain, channel) in &self.channels {
            let before = channels.insert(stain.clone(), channel.clone());
            ensure!(
                before.is_none(),
                "--channel {stain}=… is given twice\nhint: keep one of them"
            );
        }
        Ok(Images {
            path: images.to_owned(),
            layout: Layout {
                pattern: self.pattern.clone(),
                channels,
            },
        })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').map(|(a, b)| (a.trim(), b.trim()));
    match parts {
        Some((stain, channel)) if !stain.is_empty() && !channel.is_empty() => {
            Ok((stain.to_owned(), channel.to_owned()))
        }
        _ => Err("use STAIN=CHANNEL, such as red=0 or blue=DAPI".into()),
    }
}
