//! Samples whose channels are all in one TIFF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    ChannelError, ChannelSelector, DecodeError, DecodeLimits, FileSource, FindError, LocalFiles,
    Sample, check_channels,
};

/// How the names of such files end, in lower case; the longest that fits counts.
const ENDINGS: [&str; 4] = [".ome.tif", ".ome.tiff", ".tif", ".tiff"];

/// The samples among the files `names` of a folder that are called like a TIFF file, sorted by id:
/// `<Id>.tif`, `<Id>.tiff`, `<Id>.ome.tif` or `<Id>.ome.tiff`. `wanted` says for each of
/// `channels` its name or number in the files. No file is opened.
///
/// # Errors
///
/// Two files have the same id, or an id is no text.
pub fn with_all_channels(
    dir: &Path,
    names: &[String],
    channels: &Arc<[String]>,
    wanted: &[&str],
) -> Result<Vec<Sample>, FindError> {
    let pick = |name: &&str| ChannelSelector::Channel((*name).to_owned());
    let picks: Arc<[ChannelSelector]> = wanted.iter().map(pick).collect();
    let mut samples = BTreeMap::<String, Sample>::new();
    for name in names {
        let Some(id) = tiff_id(name) else { continue };
        let path = dir.join(name);
        if id.contains(char::REPLACEMENT_CHARACTER) {
            return Err(FindError::NotText(path));
        }
        let sample = Sample::of_one_file(id, path, channels, &picks);
        let second = sample.files[0].clone();
        if let Some(first) = samples.insert(id.to_owned(), sample) {
            return Err(FindError::Ambiguous {
                id: id.to_owned(),
                channel: channels.join(", "),
                first: first.files.into_iter().flatten().next().unwrap_or_default(),
                second: second.unwrap_or_default(),
            });
        }
    }
    Ok(samples.into_values().collect())
}

impl Sample {
    /// A sample whose channels, at least one, are all in the file `path`.
    #[must_use]
    pub fn of_one_file(
        id: &str,
        path: PathBuf,
        channels: &Arc<[String]>,
        picks: &Arc<[ChannelSelector]>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            channels: channels.clone(),
            files: vec![Some(path); channels.len()],
            picks: picks.clone(),
        }
    }

    /// Whether the sample's first file, if it holds several channels, has those that are wanted.
    /// Where one file lacks them, most likely all do, and it is better to say so at once.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Missing`], [`ChannelError::Ambiguous`] and nothing else: a file that cannot
    /// be read says nothing of the others.
    pub fn check_channels(&self, limits: &DecodeLimits) -> Result<(), ChannelError> {
        let together = self.together(0);
        let (false, Some(Some(path))) = (together.is_empty(), self.files.first()) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let read = LocalFiles.read(path, limits.max_file_bytes, &mut bytes);
        let checked = read.map(|()| check_channels(&bytes, &together, limits));
        match checked {
            Ok(Err(DecodeError::Channels(
                error @ (ChannelError::Missing { .. } | ChannelError::Ambiguous { .. }),
            ))) => Err(error),
            _ => Ok(()),
        }
    }
}

/// The name without a TIFF file's ending.
fn tiff_id(name: &str) -> Option<&str> {
    let stem = |ending: &&str| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        (!stem.is_empty() && end.eq_ignore_ascii_case(ending)).then_some(stem)
    };
    ENDINGS.iter().find_map(stem)
}

/// Whether a file's name is that of a TIFF file.
#[must_use]
pub fn is_tiff_name(name: &str) -> bool {
    tiff_id(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_end_before_the_longest_ending() {
        for (name, id) in [
            ("a.tif", Some("a")),
            ("a.b.TIFF", Some("a.b")),
            ("a.ome.tif", Some("a")),
            ("é.OME.tiff", Some("é")),
            (".ome.tif", Some(".ome")),
            (".tif", None),
            ("tif", None),
            ("a.png", None),
            ("a.tifé", None),
        ] {
            assert_eq!(tiff_id(name), id, "{name}");
        }
    }
}
