//! Finds samples in a folder and reads their files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{append_channels, append_plane};
use super::{DecodeError, DecodeLimits, FileSource, LocalFiles, Planes, multichannel_samples};

mod error;

pub use error::{FindError, SampleError, SampleErrorKind};

/// Image file extensions, compared without case.
const IMAGE_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "tif", "tiff"];

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
    fn expected_file(&self, index: usize) -> String {
        if self.picks.is_empty() {
            return format!("{}_{}.png", self.id, self.channels[index]);
        }
        String::new()
    }
}

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

/// Reads a sample's files into `[C, H, W]` planes, in the order of its channels.
///
/// # Errors
///
/// [`SampleError`] with the first file that is missing, unreadable or of another size than the
/// first file of the sample.
pub fn read_sample(sample: &Sample, limits: &DecodeLimits) -> Result<Planes, SampleError> {
    let mut planes = Planes::default();
    read_sample_into(&LocalFiles, sample, limits, (&mut Vec::new(), &mut planes))?;
    Ok(planes)
}

/// As [`read_sample`], into `planes`, with `bytes` as buffer for one encoded file after the other.
/// Replaces the content of both and reuses their memory.
pub(super) fn read_sample_into(
    files: &dyn FileSource,
    sample: &Sample,
    limits: &DecodeLimits,
    (bytes, planes): (&mut Vec<u8>, &mut Planes),
) -> Result<(), SampleError> {
    let fail = |file: String, kind| SampleError {
        id: sample.id.clone(),
        file,
        kind,
    };
    planes.data.clear();
    (planes.width, planes.height, planes.channels) = (0, 0, 0);
    let mut first = None;
    while planes.channels < sample.files.len() {
        let channel = planes.channels;
        let Some(path) = &sample.files[channel] else {
            let kind = SampleErrorKind::MissingChannel {
                channel: sample.channels[channel].clone(),
            };
            return Err(fail(sample.expected_file(channel), kind));
        };
        let channels = sample.channels_in_file(channel);
        let size = files
            .read(path, limits.max_file_bytes, bytes)
            .and_then(|()| Ok(append(bytes, &channels, limits, &mut planes.data)?))
            .map_err(|kind| fail(path.display().to_string(), kind))?;
        let other = *first.get_or_insert(path);
        if planes.channels == 0 {
            (planes.width, planes.height) = size;
        }
        let other_size = (planes.width, planes.height);
        if size != other_size {
            let kind = SampleErrorKind::SizesDiffer {
                size,
                other: other.display().to_string(),
                other_size,
            };
            return Err(fail(path.display().to_string(), kind));
        }
        planes.channels += channels.len().max(1);
    }
    Ok(())
}

/// Decodes the channels of a multi-channel file, or the whole file if `channels` is empty, and
/// appends the pixels to `out`. Returns width and height.
fn append(
    bytes: &[u8],
    channels: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    match channels {
        [] => append_plane(bytes, limits, out),
        _ => append_channels(bytes, channels, limits, out),
    }
}

/// One file of a sample, with its pixels or the reason why it cannot be used.
#[derive(Debug)]
pub struct SampleFile<'a> {
    pub path: &'a Path,
    /// Index of the sample's first channel in the file; the others follow.
    pub first: usize,
    /// Number of the sample's channels in the file.
    pub channels: usize,
    pub planes: Result<Planes, SampleErrorKind>,
}

/// Calls `visit` for each existing file of a sample, even if others are unreadable. Channels
/// without a file are skipped.
pub fn for_each_file(sample: &Sample, limits: &DecodeLimits, visit: &mut dyn FnMut(SampleFile)) {
    let (mut bytes, mut first) = (Vec::new(), 0);
    while first < sample.files.len() {
        let names = sample.channels_in_file(first);
        let channels = names.len().max(1);
        if let Some(path) = &sample.files[first] {
            let decode = |bytes: &[u8]| {
                let mut data = Vec::new();
                let (width, height) = append(bytes, &names, limits, &mut data)?;
                Ok(Planes {
                    width,
                    height,
                    channels,
                    data,
                })
            };
            let read = LocalFiles.read(path, limits.max_file_bytes, &mut bytes);
            visit(SampleFile {
                path,
                first,
                channels,
                planes: read.and_then(|()| decode(&bytes)),
            });
        }
        first += channels;
    }
}

#[cfg(test)]
mod tests;
