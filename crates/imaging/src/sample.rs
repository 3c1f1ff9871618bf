//! A sample: one field of view and its image files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One field of view: an id and a file per required channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Part of the file names before `_<channel>`.
    pub id: String,
    /// Names of the required channels, shared by all samples of a folder.
    pub channels: Arc<[String]>,
    /// File of each channel; `None` if it is missing.
    pub files: Vec<Option<PathBuf>>,
    /// Which part of its file each channel is. Empty if every file is named `<Id>_<channel>` and
    /// contains only that channel.
    pub picks: Arc<[ChannelSelector]>,
}

/// Which part of its file a channel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelSelector {
    /// The whole file: it contains no other channel.
    WholeFile,
    /// One channel of a multi-channel TIFF file: its name in the file's OME-XML, or its number from
    /// 0.
    Channel(String),
}

impl Sample {
    /// Returns the existing files, in the order of the channels.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().flatten().map(PathBuf::as_path)
    }

    /// Returns whether every required channel has a file.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(Option::is_some)
    }

    /// Returns the required channels without a file.
    pub fn missing_channels(&self) -> impl Iterator<Item = &str> {
        let channels = self.channels.iter().zip(&self.files);
        let missing = channels.filter(|(_, file)| file.is_none());
        missing.map(|(channel, _)| channel.as_str())
    }

    /// Returns the names or numbers of the consecutive channels from `from` on that are in the same
    /// multi-channel file. Empty if channel `from` is the whole file.
    pub(super) fn channels_in_file(&self, from: usize) -> Vec<&str> {
        let rest = self.files.iter().zip(self.picks.iter()).skip(from);
        let same = rest.map_while(|(file, pick)| match pick {
            ChannelSelector::Channel(name) if *file == self.files[from] => Some(name.as_str()),
            _ => None,
        });
        same.collect()
    }

    /// Returns the file name that channel `index` should have, or `""` if names do not follow from
    /// ids.
    pub(super) fn expected_file(&self, index: usize) -> String {
        if self.picks.is_empty() {
            return format!("{}_{}.png", self.id, self.channels[index]);
        }
        String::new()
    }
}
