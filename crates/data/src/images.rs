//! Where images are and how they are stored: a folder of `<Id>_<stain>` files or of TIFF files with
//! all channels, names of any other pattern, or a manifest.

mod manifest;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

pub use self::manifest::{ImageManifestError, ImageManifestFault};
pub use self::pattern::{Pattern, PatternError, PatternFault};
use rgby_imaging::{
    ChannelError, DecodeLimits, FindError, Sample, find_samples, with_all_channels,
};

/// Where images are, and how they are stored there.
#[derive(Debug, Clone)]
pub struct Images {
    /// A folder, or a manifest: a CSV or Parquet file.
    pub path: PathBuf,
    /// What is unusual about it.
    pub layout: Layout,
}

/// What is unusual about how images are stored. By default a sample is `<Id>_<stain>` files, or a
/// TIFF file that calls its channels by the stains' names, or a line of a manifest with a column a
/// stain.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// How files are named.
    pub pattern: Option<Pattern>,
    /// What stains are called where the images are: the names or numbers of a TIFF file's channels,
    /// what the pattern's `channel` stands for, or a manifest's columns. Others by their own names.
    pub channels: BTreeMap<String, String>,
}

/// Why no samples were found.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// The folder is wrong.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Names do not fit the pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ImageManifestError),
    /// A stain was said to be called something, but nothing reads that stain.
    #[error("--channel {stain}=…: there is no stain `{stain}`; the stains are {stains}")]
    UnknownStain {
        /// The stain.
        stain: String,
        /// Those that are there.
        stains: String,
    },
    /// A manifest names its files itself.
    #[error("--pattern is about names in a folder, and {} is a manifest; leave it out", .0.display())]
    PatternOfManifest(PathBuf),
    /// The first file with several channels lacks one.
    #[error("{} {error}", path.display())]
    Channels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ChannelError,
    },
}

impl Images {
    /// Images that are stored as rgby expects them by default.
    #[must_use]
    pub fn plain(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            layout: Layout::default(),
        }
    }

    /// Whether they are in a folder and stored as rgby expects them by default.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.layout.pattern.is_none()
            && self.layout.channels.is_empty()
            && manifest::ManifestFormat::of(&self.path).is_none()
    }

    /// The samples, sorted by id; `stains` are the channels that each should have. A sample that
    /// lacks files is there without them. In a folder the first TIFF file of several channels is
    /// opened, to see whether its channels are those that are wanted; no other image is.
    ///
    /// # Errors
    ///
    /// [`ImagesError`] if there is no sample, or something is wrong with all of them.
    pub fn find(&self, stains: &[String]) -> Result<Vec<Sample>, ImagesError> {
        let layout = &self.layout;
        if let Some(stain) = layout.channels.keys().find(|stain| !stains.contains(stain)) {
            return Err(ImagesError::UnknownStain {
                stain: stain.clone(),
                stains: stains.join(", "),
            });
        }
        let wanted: Vec<&str> = stains.iter().map(|stain| layout.name_of(stain)).collect();
        let channels: Arc<[String]> = stains.into();
        if let Some(kind) = manifest::ManifestFormat::of(&self.path) {
            if layout.pattern.is_some() {
                return Err(ImagesError::PatternOfManifest(self.path.clone()));
            }
            return Ok(manifest::read(&self.path, kind, &channels, &wanted)?);
        }
        let samples = match &layout.pattern {
            Some(pattern) => pattern.find(&self.path, &channels, &wanted)?,
            None if layout.channels.is_empty() => find_samples(&self.path, stains)?,
            None => self.whole_files(&channels, &wanted)?,
        };
        if let Some(first) = samples.first() {
            let checked = first.check_channels(&DecodeLimits::default());
            checked.map_err(|error| ImagesError::Channels {
                path: first.paths().next().map(Path::to_owned).unwrap_or_default(),
                error,
            })?;
        }
        Ok(samples)
    }

    /// TIFF files with all channels, whatever else is in the folder.
    fn whole_files(
        &self,
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<Vec<Sample>, FindError> {
        let dir = &self.path;
        if dir.is_file() {
            return Err(FindError::NotAFolder(dir.clone()));
        }
        let names = names_in(dir)?;
        let samples = with_all_channels(dir, &names, channels, wanted)?;
        if samples.is_empty() {
            return Err(FindError::NoTiff {
                path: dir.clone(),
                count: names.len(),
            });
        }
        Ok(samples)
    }
}

impl Layout {
    /// What a stain is called where the images are.
    fn name_of<'a>(&'a self, stain: &'a str) -> &'a str {
        self.channels.get(stain).map_or(stain, String::as_str)
    }
}

impl fmt::Display for Layout {
    /// All of it, for whatever depends on it; nothing by default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pattern) = &self.pattern {
            write!(f, ", pattern {pattern:?}")?;
        }
        for (stain, name) in &self.channels {
            write!(f, ", channel {stain:?}={name:?}")?;
        }
        Ok(())
    }
}

/// The names of a folder's entries, as far as they are text.
fn names_in(dir: &Path) -> Result<Vec<String>, FindError> {
    let error = |source| FindError::Io {
        path: dir.into(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(error)? {
        names.push(
            entry
                .map_err(error)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
