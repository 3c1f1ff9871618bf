//! Finds the samples of a folder by the names of its files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{FindError, IMAGE_EXTENSIONS, Sample, multichannel_samples};

/// Lists the samples in `dir`: every id with at least one file `<Id>_<channel>.<extension>` of a
/// required channel, sorted by id. Other files are ignored. Ids and channels may contain
/// underscores: if a name ends with two of the channels, the longer one counts.
///
/// A folder without any such file may contain TIFF files with all channels of a sample, `<Id>.tif`,
/// `<Id>.tiff` or `<Id>.ome.tif`, with the channels' names in their OME-XML.
///
/// `channels` are names of stains, as returned by [`Preprocess::stains`].
///
/// [`Preprocess::stains`]: super::Preprocess::stains
///
/// The folder is listed once and no file is opened, so that 100,000 files on a network share are
/// listed fast.
///
/// # Errors
///
/// [`FindError`] if `dir` is not a folder, cannot be listed, or contains no matching file name.
/// Also if an id is not UTF-8, or if a channel of a sample has two files.
pub fn find_samples(dir: &Path, channels: &[String]) -> Result<Vec<Sample>, FindError> {
    let io_error = |cause| FindError::Io {
        path: dir.into(),
        cause,
    };
    if dir.is_file() {
        return Err(FindError::NotAFolder(dir.into()));
    }
    let entries = fs::read_dir(dir).map_err(io_error)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    samples_among(dir, &mut names.map(|name| name.map_err(io_error)), channels)
}

/// As [`find_samples`], for a folder `dir` that was already listed: `names` are its file names.
///
/// # Errors
///
/// The first error in `names`, and as [`find_samples`].
pub fn samples_among(
    dir: &Path,
    names: &mut dyn Iterator<Item = Result<OsString, FindError>>,
    channels: &[String],
) -> Result<Vec<Sample>, FindError> {
    let channels: Arc<[String]> = channels.into();
    let mut samples = BTreeMap::<String, Sample>::new();
    let mut others = Vec::new();
    for file in names {
        let file = file?;
        let name = file.to_string_lossy().into_owned();
        let Some((id, channel)) = parse_name(&name, &channels) else {
            others.push(name);
            continue;
        };
        if file.to_str().is_none() {
            return Err(FindError::NotText(dir.join(&file)));
        }
        let sample = samples.entry(id.to_owned()).or_insert_with(|| Sample {
            id: id.to_owned(),
            channels: channels.clone(),
            files: vec![None; channels.len()],
            picks: Arc::default(),
        });
        if let Some(first) = sample.files[channel].replace(dir.join(&file)) {
            return Err(FindError::Ambiguous {
                id: id.to_owned(),
                channel: channels[channel].clone(),
                first,
                second: dir.join(&file),
            });
        }
    }
    if samples.is_empty() {
        let names: Vec<&str> = channels.iter().map(String::as_str).collect();
        let samples = multichannel_samples(dir, &others, &channels, &names)?;
        if !samples.is_empty() {
            return Ok(samples);
        }
        others.sort();
        return Err(FindError::Empty {
            path: dir.into(),
            channels: channels.join("|"),
            found: match others.first() {
                None => "an empty folder".into(),
                Some(first) => format!("{} other entries, such as `{first}`", others.len()),
            },
        });
    }
    Ok(samples.into_values().collect())
}

/// Splits `<Id>_<channel>.<extension>` into the id and the channel's index.
fn parse_name<'a>(name: &'a str, channels: &[String]) -> Option<(&'a str, usize)> {
    let (stem, extension) = name.rsplit_once('.')?;
    if !IMAGE_EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
    {
        return None;
    }
    let id = |channel: &str| stem.strip_suffix(channel)?.strip_suffix('_');
    let matching = channels
        .iter()
        .enumerate()
        .filter_map(|(index, channel)| Some((id(channel)?, index)));
    matching
        .filter(|(id, _)| !id.is_empty())
        .min_by_key(|(id, _)| id.len())
}
