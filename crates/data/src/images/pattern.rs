//! Other file names than `<Id>_<stain>`: a regular expression with named groups.

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

/// Group with the channel of a file.
const CHANNEL: &str = "channel";
/// Limit of nested folders, because links can form cycles.
const MAX_DEPTH: usize = 32;

/// A regular expression for file names. It must match the whole name, or the whole path below the
/// image folder if it contains a `/`. Its group `channel` is the channel of a file; without this
/// group, files are multi-channel TIFFs. Its other named groups, joined by `_`, are the id.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    /// Groups that form the id.
    id: Vec<String>,
    /// Whether each file is one channel.
    by_channel: bool,
}

/// Why a pattern is invalid. The text is one line, as clap appends it to its own.
#[derive(Debug, Error)]
pub enum PatternFault {
    #[error(transparent)]
    Regex(#[from] Box<regex::Error>),
    /// There is no named group beside `channel`.
    #[error("no named group for the id; write (?<id>…) around that part of the name")]
    NoId,
}

/// Why no samples were found with a pattern.
#[derive(Debug, Error)]
pub enum PatternError {
    #[error("cannot list {}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    /// More than `MAX_DEPTH` nested folders.
    #[error(
        "{} is more than {MAX_DEPTH} folders deep\nhint: remove a link to a parent folder",
        .0.display()
    )]
    TooDeep(PathBuf),
    /// No file name matches.
    #[error(
        "--pattern: none of the {count} files in {} match `{pattern}`{examples}\nhint: the pattern \
         must match the whole {}",
        path.display(), if *deep { "path below that folder" } else { "name" }
    )]
    NoMatch {
        path: PathBuf,
        pattern: String,
        /// Whether paths are matched instead of names.
        deep: bool,
        count: usize,
        /// Some of the names, with a leading text; empty if there are none.
        examples: String,
    },
    /// A single-channel file matches a pattern without the group `channel`.
    #[error(
        "--pattern: {} matches, but only TIFF files contain several channels\nhint: add a group \
         (?<channel>…)",
        .0.display()
    )]
    NoChannelGroup(PathBuf),
    /// No file has a required channel.
    #[error(
        "--pattern: no file has the channel `{wanted}` for the stain {stain}; the channels are \
         {found}\nhint: name it with --channel {stain}=…"
    )]
    NoChannel {
        stain: String,
        /// Required name of its channel.
        wanted: String,
        /// Names of the channels.
        found: String,
    },
    /// Two files match one channel of one sample. The text is one line, as `check-data` lists it.
    #[error(
        "--pattern: {} and {} are both channel {channel} of sample `{id}`; change the pattern to \
         match one of them, or to include the difference in the id",
        first.display(), second.display()
    )]
    Ambiguous {
        id: String,
        channel: String,
        first: PathBuf,
        second: PathBuf,
    },
    /// A matching name is not UTF-8. The text is one line, as `check-data` lists it.
    #[error("the file name {} is not UTF-8; rename the file", .0.display())]
    NotText(PathBuf),
}

impl FromStr for Pattern {
    type Err = PatternFault;

    fn from_str(text: &str) -> Result<Self, PatternFault> {
        let compile = |text: &str| Regex::new(text).map_err(Box::new);
        // Compiled alone first, so that errors show the text of the user.
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

/// A file below the image folder.
struct ListedFile {
    path: PathBuf,
    /// Name or path that the pattern is matched against.
    name: String,
    is_utf8: bool,
}

impl Pattern {
    /// Returns the samples with matching files, sorted by id. `wanted` names each of `channels`.
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
            self.multichannel_files(&entries, channels, wanted)?
        };
        if samples.is_empty() {
            let examples: Vec<_> = entries
                .iter()
                .take(3)
                .map(|e| format!("`{}`", e.name))
                .collect();
            return Err(PatternError::NoMatch {
                path: dir.into(),
                pattern: self.text.clone(),
                deep: self.is_deep(),
                count: entries.len(),
                examples: match examples.len() {
                    0 => String::new(),
                    _ => format!(", such as {}", examples.join(", ")),
                },
            });
        }
        Ok(samples.into_values().collect())
    }

    /// Returns whether nested folders are searched.
    fn is_deep(&self) -> bool {
        self.text.contains('/')
    }

    /// Returns the id of a matching file.
    fn id(&self, found: &Captures) -> Option<String> {
        let parts = self.id.iter().filter_map(|group| found.name(group));
        let parts: Vec<&str> = parts.map(|part| part.as_str()).collect();
        let id = parts.join("_");
        (!id.is_empty()).then_some(id)
    }

    /// Returns the id and the groups of each matching file.
    fn matching<'a>(
        &self,
        entries: &'a [ListedFile],
    ) -> impl Iterator<Item = Result<(String, Captures<'a>, &'a ListedFile), PatternError>> {
        entries.iter().filter_map(|entry| {
            let found = self.regex.captures(&entry.name)?;
            let id = self.id(&found)?;
            Some(if entry.is_utf8 {
                Ok((id, found, entry))
            } else {
                Err(PatternError::NotText(entry.path.clone()))
            })
        })
    }

    /// Returns samples with one file per channel.
    fn single_files(
        &self,
        entries: &[ListedFile],
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<BTreeMap<String, Sample>, PatternError> {
        let picks: Arc<[ChannelSelector]> = vec![ChannelSelector::WholeFile; channels.len()].into();
        let mut samples = BTreeMap::<String, Sample>::new();
        let mut found_channels = BTreeSet::new();
        for file in self.matching(entries) {
            let (id, found, entry) = file?;
            let Some(text) = found.name(CHANNEL) else {
                continue;
            };
            found_channels.insert(text.as_str());
            let matches = |name: &&str| name.to_lowercase() == text.as_str().to_lowercase();
            let sample = samples.entry(id.clone()).or_insert_with(|| Sample {
                id: id.clone(),
                channels: channels.clone(),
                files: vec![None; channels.len()],
                picks: picks.clone(),
            });
            for channel in (0..wanted.len()).filter(|&channel| matches(&wanted[channel])) {
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
            let found_channels: Vec<_> = found_channels
                .iter()
                .take(8)
                .map(|text| format!("`{text}`"))
                .collect();
            return Err(PatternError::NoChannel {
                stain: channels[channel].clone(),
                wanted: wanted[channel].into(),
                found: found_channels.join(", "),
            });
        }
        // Ids with files of other channels only are not samples.
        samples.retain(|_, sample| sample.files.iter().any(Option::is_some));
        Ok(samples)
    }

    /// Returns samples of one TIFF file each.
    fn multichannel_files(
        &self,
        entries: &[ListedFile],
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<BTreeMap<String, Sample>, PatternError> {
        let picks: Arc<[ChannelSelector]> = wanted
            .iter()
            .map(|name| ChannelSelector::Channel((*name).into()))
            .collect();
        let mut samples = BTreeMap::<String, Sample>::new();
        for file in self.matching(entries) {
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

    /// Lists the files in `dir`, sorted by name, and those in nested folders if paths are matched.
    fn list(&self, dir: &Path) -> Result<Vec<ListedFile>, PatternError> {
        let mut entries = Vec::new();
        let mut folders = vec![(dir.to_owned(), String::new(), 0)];
        while let Some((folder, before, depth)) = folders.pop() {
            let error = |cause| PatternError::Io {
                path: folder.clone(),
                cause,
            };
            if depth > MAX_DEPTH {
                return Err(PatternError::TooDeep(folder));
            }
            for entry in fs::read_dir(&folder).map_err(error)? {
                let entry = entry.map_err(error)?;
                let (path, name) = (entry.path(), entry.file_name());
                let is_utf8 = name.to_str().is_some();
                let name = format!("{before}{}", name.to_string_lossy());
                // Links are followed. A dangling link counts as a file and is unreadable later.
                let kind = entry.file_type().map_err(error)?;
                if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                    if self.is_deep() {
                        folders.push((path, name + "/", depth + 1));
                    }
                    continue;
                }
                entries.push(ListedFile {
                    path,
                    name,
                    is_utf8,
                });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }
}
