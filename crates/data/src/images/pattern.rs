//! Other names than `<Id>_<stain>`: a regular expression whose groups say what is what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use regex::{Captures, Regex};
use thiserror::Error;

use rgby_imaging::{ChannelSelector, Sample, is_tiff_name};

/// The group that tells the channels of a sample apart.
const CHANNEL: &str = "channel";
/// Folders in folders that are looked into; a link may lead back to where it came from.
const MAX_DEPTH: usize = 32;

/// How files are named: a regular expression for a whole name, or for the whole path below the
/// images' folder if it has a `/`. Its group `channel` says which channel a file is; without it a
/// file is a TIFF with all channels. Its other named groups make the id, joined by `_`.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    /// The groups that make the id.
    id: Vec<String>,
    /// Whether a file is one channel.
    by_channel: bool,
}

/// Why a regular expression is no pattern.
#[derive(Debug, Error)]
pub enum PatternFault {
    /// It is no regular expression.
    #[error("{0}")]
    Regex(#[from] Box<regex::Error>),
    /// No group makes the id.
    #[error("it has no named group that makes the id; write (?<id>…) around that part of the name")]
    NoId,
}

/// Why a folder's files do not fit a pattern.
#[derive(Debug, Error)]
pub enum PatternError {
    /// A folder cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Folders lie too deep.
    #[error(
        "{} lies more than {MAX_DEPTH} folders deep; is there a link to a folder above it?",
        .0.display()
    )]
    TooDeep(PathBuf),
    /// No name fits.
    #[error(
        "--pattern: none of the {count} files in {} fits `{pattern}`, which must match a whole {}; \
         there are {seen}",
        path.display(), if *deep { "path below that folder" } else { "name" }
    )]
    NoMatch {
        /// The folder.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// Whether paths were matched.
        deep: bool,
        /// Number of files.
        count: usize,
        /// Some of them.
        seen: String,
    },
    /// A file that fits holds one channel, but which it is cannot be told.
    #[error(
        "--pattern: {} fits, but only TIFF files hold several channels; add a group (?<channel>…)",
        .0.display()
    )]
    NoChannelGroup(PathBuf),
    /// No file is of a wanted channel.
    #[error(
        "--pattern: no file is of channel `{wanted}`, which is wanted for the stain {stain}; there \
         are the channels {seen}: say which it is with --channel {stain}=…"
    )]
    NoChannel {
        /// The stain.
        stain: String,
        /// What its channel should be called.
        wanted: String,
        /// What the channels are called.
        seen: String,
    },
    /// Two files claim to be one channel of one sample.
    #[error(
        "--pattern: {} and {} are both channel {channel} of sample `{id}`; let it fit one of them, \
         or make what tells them apart part of the id",
        first.display(), second.display()
    )]
    Ambiguous {
        /// The sample.
        id: String,
        /// The channel.
        channel: String,
        /// The one file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// A name that fits is no text.
    #[error("the name of {} is not UTF-8, so that its id cannot be written; rename it", .0.display())]
    NotText(PathBuf),
}

impl FromStr for Pattern {
    type Err = PatternFault;

    fn from_str(text: &str) -> Result<Self, PatternFault> {
        let compile = |text: &str| Regex::new(text).map_err(Box::new);
        // By itself first: errors then show what was written.
        let groups = compile(text)?;
        let names: Vec<&str> = groups.capture_names().flatten().collect();
        let id: Vec<String> = names
            .iter()
            .filter(|name| **name != CHANNEL)
            .map(ToString::to_string)
            .collect();
        if id.is_empty() {
            return Err(PatternFault::NoId);
        }
        Ok(Self {
            text: text.to_owned(),
            regex: compile(&format!(r"\A(?:{text})\z"))?,
            id,
            by_channel: names.contains(&CHANNEL),
        })
    }
}

impl Pattern {
    /// Returns the regular expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// A file below the images' folder.
struct Entry {
    path: PathBuf,
    /// What the pattern is matched against.
    name: String,
    is_text: bool,
}

impl Pattern {
    /// The samples whose files fit, sorted by id; `wanted` says what each of `channels` is called.
    pub(super) fn find(
        &self,
        dir: &Path,
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<Vec<Sample>, PatternError> {
        let entries = self.list(dir)?;
        let samples = if self.by_channel {
            self.single_files(&entries, channels, wanted)?
        } else {
            self.whole_files(&entries, channels, wanted)?
        };
        if samples.is_empty() {
            let seen: Vec<_> = entries
                .iter()
                .take(3)
                .map(|e| format!("`{}`", e.name))
                .collect();
            return Err(PatternError::NoMatch {
                path: dir.into(),
                pattern: self.text.clone(),
                deep: self.is_deep(),
                count: entries.len(),
                seen: match seen.len() {
                    0 => "none at all".into(),
                    _ => seen.join(", "),
                },
            });
        }
        Ok(samples.into_values().collect())
    }

    /// Whether folders in the folder are looked into.
    fn is_deep(&self) -> bool {
        self.text.contains('/')
    }

    /// The id of a file that fits.
    fn id(&self, found: &Captures) -> Option<String> {
        let parts = self.id.iter().filter_map(|group| found.name(group));
        let parts: Vec<&str> = parts.map(|part| part.as_str()).collect();
        let id = parts.join("_");
        (!id.is_empty()).then_some(id)
    }

    /// Id and the pattern's groups of the files that fit.
    fn fitting<'a>(
        &self,
        entries: &'a [Entry],
    ) -> impl Iterator<Item = Result<(String, Captures<'a>, &'a Entry), PatternError>> {
        entries.iter().filter_map(|entry| {
            let found = self.regex.captures(&entry.name)?;
            let id = self.id(&found)?;
            Some(if entry.is_text {
                Ok((id, found, entry))
            } else {
                Err(PatternError::NotText(entry.path.clone()))
            })
        })
    }

    /// Samples of one file a channel.
    fn single_files(
        &self,
        entries: &[Entry],
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<BTreeMap<String, Sample>, PatternError> {
        let picks: Arc<[ChannelSelector]> = vec![ChannelSelector::Alone; channels.len()].into();
        let mut samples = BTreeMap::<String, Sample>::new();
        let mut seen = BTreeSet::new();
        for file in self.fitting(entries) {
            let (id, found, entry) = file?;
            let Some(text) = found.name(CHANNEL) else {
                continue;
            };
            seen.insert(text.as_str());
            let is_it = |name: &&str| name.to_lowercase() == text.as_str().to_lowercase();
            let sample = samples.entry(id.clone()).or_insert_with(|| Sample {
                id: id.clone(),
                channels: channels.clone(),
                files: vec![None; channels.len()],
                picks: picks.clone(),
            });
            for channel in (0..wanted.len()).filter(|&channel| is_it(&wanted[channel])) {
                let Some(first) = sample.files[channel].replace(entry.path.clone()) else {
                    continue;
                };
                return Err(PatternError::Ambiguous {
                    id,
                    channel: text.as_str().into(),
                    first,
                    second: entry.path.clone(),
                });
            }
        }
        let lacking = |channel: &usize| samples.values().all(|s| s.files[*channel].is_none());
        if let (false, Some(channel)) = (samples.is_empty(), (0..wanted.len()).find(lacking)) {
            let seen: Vec<_> = seen
                .iter()
                .take(8)
                .map(|text| format!("`{text}`"))
                .collect();
            return Err(PatternError::NoChannel {
                stain: channels[channel].clone(),
                wanted: wanted[channel].into(),
                seen: seen.join(", "),
            });
        }
        // Files of other channels alone make no sample.
        samples.retain(|_, sample| sample.files.iter().any(Option::is_some));
        Ok(samples)
    }

    /// Samples of one TIFF file each.
    fn whole_files(
        &self,
        entries: &[Entry],
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<BTreeMap<String, Sample>, PatternError> {
        let picks: Arc<[ChannelSelector]> = wanted
            .iter()
            .map(|name| ChannelSelector::Channel((*name).into()))
            .collect();
        let mut samples = BTreeMap::<String, Sample>::new();
        for file in self.fitting(entries) {
            let (id, _, entry) = file?;
            if !is_tiff_name(&entry.name) {
                return Err(PatternError::NoChannelGroup(entry.path.clone()));
            }
            let sample = Sample::of_one_file(&id, entry.path.clone(), channels, &picks);
            if let Some(first) = samples.insert(id.clone(), sample) {
                return Err(PatternError::Ambiguous {
                    id,
                    channel: channels.join(", "),
                    first: first.files.into_iter().flatten().next().unwrap_or_default(),
                    second: entry.path.clone(),
                });
            }
        }
        Ok(samples)
    }

    /// The files in `dir`, sorted by name; those in its folders too if the pattern is about paths.
    fn list(&self, dir: &Path) -> Result<Vec<Entry>, PatternError> {
        let mut entries = Vec::new();
        let mut folders = vec![(dir.to_owned(), String::new(), 0)];
        while let Some((folder, before, depth)) = folders.pop() {
            let error = |source| PatternError::Io {
                path: folder.clone(),
                source,
            };
            if depth > MAX_DEPTH {
                return Err(PatternError::TooDeep(folder));
            }
            for entry in fs::read_dir(&folder).map_err(error)? {
                let entry = entry.map_err(error)?;
                let (path, name) = (entry.path(), entry.file_name());
                let is_text = name.to_str().is_some();
                let name = format!("{before}{}", name.to_string_lossy());
                // A link is followed; one that leads nowhere is a file that cannot be read.
                let kind = entry.file_type().map_err(error)?;
                if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                    if self.is_deep() {
                        folders.push((path, name + "/", depth + 1));
                    }
                    continue;
                }
                entries.push(Entry {
                    path,
                    name,
                    is_text,
                });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }
}
