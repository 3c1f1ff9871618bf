//! Flags about how images are stored, for all commands that read them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::ensure;
use clap::Args;

use crate::data::{Images, Layout, Pattern};

/// How the images in `--images` are stored, where that is not as `<Id>_<stain>` files.
#[derive(Debug, Clone, Args)]
pub struct LayoutArgs {
    /// Other file names: a regular expression for a whole name, or, if it has a `/`, for the path
    /// below --images. Its group `channel` is the channel, the other named groups are the id, such
    /// as `(?<well>[A-P]\d\d)_s(?<site>\d)_w(?<channel>\d)\.tif`
    #[arg(long, value_name = "REGEX", requires = "images")]
    pub pattern: Option<Pattern>,
    /// What a stain is called there: the name or number (from 0) of a multi-channel TIFF's channel,
    /// what the pattern's `channel` is, or a manifest's column; may be repeated [default: the
    /// stain's own name]
    #[arg(id = "channel", long = "channel", value_name = "STAIN=CHANNEL", value_parser = pair, requires = "images")]
    pub channels: Vec<(String, String)>,
}

impl LayoutArgs {
    /// The images in a folder or manifest.
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
                "--channel {stain}=… is there twice; keep one of them"
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
    let trimmed = text.split_once('=').map(|(a, b)| (a.trim(), b.trim()));
    match trimmed {
        Some((stain, channel)) if !stain.is_empty() && !channel.is_empty() => {
            Ok((stain.to_owned(), channel.to_owned()))
        }
        _ => Err("write STAIN=CHANNEL, such as red=0 or blue=DAPI".into()),
    }
}
