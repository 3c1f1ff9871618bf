//! Samples in a folder: which files belong together, and reading them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{append_channels, append_plane};
use super::{DecodeError, DecodeLimits, FileSource, LocalFiles, Planes, with_all_channels};

mod error;

pub use error::{FindError, SampleError, SampleErrorKind};

/// Extensions that an image file may have, in lower case; upper case is accepted too.
const IMAGE_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "tif", "tiff"];

/// One field of view: an id and a file for each wanted channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The part of the file names before `_<channel>`.
    pub id: String,
    /// Names of the wanted channels, shared by all samples of a folder.
    pub channels: Arc<[String]>,
    /// The file of each channel; `None` where there is none.
    pub files: Vec<Option<PathBuf>>,
    /// What of its file each channel is; none where every file is named `<Id>_<channel>` and holds
    /// that channel alone.
    pub picks: Arc<[ChannelSelector]>,
}

/// What of its file a channel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelSelector {
    /// All of it: the file holds no other channel.
    Alone,
    /// A channel of a TIFF file that holds several: its name in the file's OME-XML, or its number
    /// from 0.
    Channel(String),
}

impl Sample {
    /// Its files, in the order of its channels.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().flatten().map(PathBuf::as_path)
    }

    /// Whether each wanted channel has a file.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(Option::is_some)
    }

    /// The wanted channels that have no file.
    pub fn missing_channels(&self) -> impl Iterator<Item = &str> {
        let channels = self.channels.iter().zip(&self.files);
        let missing = channels.filter(|(_, file)| file.is_none());
        missing.map(|(channel, _)| channel.as_str())
    }

    /// The channels of a common file that begin with channel `from`: by name or number, and none
    /// where that is alone in its file.
    pub(super) fn together(&self, from: usize) -> Vec<&str> {
        let rest = self.files.iter().zip(self.picks.iter()).skip(from);
        let same = rest.map_while(|(file, pick)| match pick {
            ChannelSelector::Channel(wanted) if *file == self.files[from] => Some(wanted.as_str()),
            _ => None,
        });
        same.collect()
    }

    /// The name of the file that channel `index` should have, where names follow from ids.
    fn expected(&self, index: usize) -> String {
        if self.picks.is_empty() {
            return format!("{}_{}.png", self.id, self.channels[index]);
        }
        String::new()
    }
}

/// Lists the samples in `dir`: every id with at least one file `<Id>_<channel>.<extension>` of a
/// wanted channel, sorted by id. Ids and channels may contain underscores: of channels that both
/// end a name, it belongs to the longer one. Other files are ignored. A folder without any such
/// file may hold TIFF files with all of a sample's channels, `<Id>.tif`, `<Id>.tiff` or
/// `<Id>.ome.tif`, whose OME-XML calls the channels by these names.
///
/// `channels` are the names of stains, as [`Preprocess::stains`] gives them.
///
/// [`Preprocess::stains`]: super::Preprocess::stains
///
/// The folder is listed once and no file is opened, so that a folder of 100,000 files on a
/// network share is no burden.
///
/// # Errors
///
/// [`FindError`] if `dir` is not a folder, cannot be listed, holds no file with a fitting name or
/// one whose id is no text, or holds two files for one channel of a sample.
pub fn find_samples(dir: &Path, channels: &[String]) -> Result<Vec<Sample>, FindError> {
    let io_error = |source| FindError::Io {
        path: dir.into(),
        source,
    };
    if dir.is_file() {
        return Err(FindError::NotAFolder(dir.into()));
    }
    let entries = fs::read_dir(dir).map_err(io_error)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    samples_among(dir, &mut names.map(|name| name.map_err(io_error)), channels)
}

/// As [`find_samples`], in a folder `dir` that was listed elsewhere: `names` are those of its
/// files.
///
/// # Errors
///
/// That of a name, and as [`find_samples`].
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
        let wanted: Vec<&str> = channels.iter().map(String::as_str).collect();
        let whole = with_all_channels(dir, &others, &channels, &wanted)?;
        if !whole.is_empty() {
            return Ok(whole);
        }
        others.sort();
        return Err(FindError::Empty {
            path: dir.into(),
            channels: channels.join("|"),
            seen: match others.first() {
                None => "an empty folder".into(),
                Some(first) => format!("{} other entries, such as `{first}`", others.len()),
            },
        });
    }
    Ok(samples.into_values().collect())
}

/// Splits `<Id>_<channel>.<extension>` into the id and the channel's number.
fn parse_name<'a>(name: &'a str, channels: &[String]) -> Option<(&'a str, usize)> {
    let (stem, extension) = name.rsplit_once('.')?;
    if !IMAGE_EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
    {
        return None;
    }
    let id = |channel: &str| stem.strip_suffix(channel)?.strip_suffix('_');
    let fitting = channels
        .iter()
        .enumerate()
        .filter_map(|(index, channel)| Some((id(channel)?, index)));
    fitting
        .filter(|(id, _)| !id.is_empty())
        .min_by_key(|(id, _)| id.len())
}

/// Reads a sample's files into `[C, H, W]` planes, in the order of its channels.
///
/// # Errors
///
/// [`SampleError`] naming the first file that is missing, unreadable or of another size than the
/// sample's first file.
pub fn read_sample(sample: &Sample, limits: &DecodeLimits) -> Result<Planes, SampleError> {
    let mut planes = Planes::default();
    read_sample_into(&LocalFiles, sample, limits, (&mut Vec::new(), &mut planes))?;
    Ok(planes)
}

/// As [`read_sample`], into `planes`; `bytes` holds one encoded file after the other. What both
/// had is lost, their memory is used again.
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
            return Err(fail(sample.expected(channel), kind));
        };
        let together = sample.together(channel);
        let size = files
            .read(path, limits.max_file_bytes, bytes)
            .and_then(|()| Ok(append(bytes, &together, limits, &mut planes.data)?))
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
        planes.channels += together.len().max(1);
    }
    Ok(())
}

/// Decodes the channels `together` of a file, or all of a file that holds no other, behind the
/// pixels of `out`; returns width and height.
fn append(
    bytes: &[u8],
    together: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    match together {
        [] => append_plane(bytes, limits, out),
        _ => append_channels(bytes, together, limits, out),
    }
}

/// One file of a sample: the channels that it holds, or why it cannot be used.
#[derive(Debug)]
pub struct SampleFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// Number of the sample's first channel that it holds; the others follow.
    pub first: usize,
    /// How many channels of the sample it holds.
    pub channels: usize,
    /// Their pixels.
    pub planes: Result<Planes, SampleErrorKind>,
}

/// Shows each file that a sample has, one after the other, whatever is wrong with the others;
/// channels without a file are passed over.
pub fn each_part(sample: &Sample, limits: &DecodeLimits, show: &mut dyn FnMut(SampleFile)) {
    let (mut bytes, mut first) = (Vec::new(), 0);
    while first < sample.files.len() {
        let together = sample.together(first);
        let channels = together.len().max(1);
        if let Some(path) = &sample.files[first] {
            let decode = |bytes: &[u8]| {
                let mut data = Vec::new();
                let (width, height) = append(bytes, &together, limits, &mut data)?;
                Ok(Planes {
                    width,
                    height,
                    channels,
                    data,
                })
            };
            let read = LocalFiles.read(path, limits.max_file_bytes, &mut bytes);
            show(SampleFile {
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
