//! Samples with all channels in one TIFF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    ChannelError, ChannelSelector, DecodeError, DecodeLimits, FileSource, FindError, LocalFiles,
    Sample, check_channels,
};

/// File name endings in lower case, longest first: the first match counts.
const ENDINGS: [&str; 4] = [".ome.tif", ".ome.tiff", ".tif", ".tiff"];

/// Returns one sample per TIFF file name in `names`, sorted by id: `<Id>.tif`, `<Id>.tiff`,
/// `<Id>.ome.tif` or `<Id>.ome.tiff`. `wanted` holds the name or number of each of `channels` in
/// the files. No file is opened.
///
/// # Errors
///
/// Two files have the same id, or an id is not UTF-8.
pub fn multichannel_samples(
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
    /// Returns a sample whose channels, at least one, are all in the file `path`.
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

    /// Checks that the first file, if it has several channels, has the required ones. If one file
    /// lacks them, probably all do, and an early error saves the user time.
    ///
    /// # Errors
    ///
    /// Only [`ChannelError::Missing`] and [`ChannelError::Ambiguous`]. An unreadable file is no
    /// error here, because other files may be readable.
    pub fn check_channels(&self, limits: &DecodeLimits) -> Result<(), ChannelError> {
        let channels = self.channels_in_file(0);
        let (false, Some(Some(path))) = (channels.is_empty(), self.files.first()) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let read = LocalFiles.read(path, limits.max_file_bytes, &mut bytes);
        let checked = read.map(|()| check_channels(&bytes, &channels, limits));
        match checked {
            Ok(Err(DecodeError::Channels(
                error @ (ChannelError::Missing { .. } | ChannelError::Ambiguous { .. }),
            ))) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns the name without its TIFF ending.
fn tiff_id(name: &str) -> Option<&str> {
    let stem = |ending: &&str| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        (!stem.is_empty() && end.eq_ignore_ascii_case(ending)).then_some(stem)
    };
    ENDINGS.iter().find_map(stem)
}

/// Returns whether a file name has a TIFF ending.
#[must_use]
pub fn is_tiff_name(name: &str) -> bool {
    tiff_id(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_the_name_without_the_longest_ending() {
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
