//! Location and layout of images: a folder of `<Id>_<stain>` files or of multi-channel TIFF files,
//! file names of any other pattern, or a manifest.

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
    ChannelError, DecodeLimits, FindError, Sample, find_samples, multichannel_samples,
};

/// Location and layout of images.
#[derive(Debug, Clone)]
pub struct Images {
    /// A folder, or a CSV or Parquet manifest.
    pub path: PathBuf,
    pub layout: Layout,
}

/// Deviations from the default layout. By default a sample is a set of `<Id>_<stain>` files or a
/// TIFF file with the stains as channel names. In a manifest it is a line with one column per
/// stain.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Pattern of file names.
    pub pattern: Option<Pattern>,
    /// Names of stains in the images, where they differ: name or number of a TIFF channel, value of
    /// the pattern's group `channel`, or column of a manifest.
    pub channels: BTreeMap<String, String>,
}

/// Why no samples were found.
#[derive(Debug, Error)]
pub enum ImagesError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    Manifest(#[from] ImageManifestError),
    /// `--channel` names a stain that is not used.
    #[error("--channel {stain}=…: unknown stain `{stain}`\nhint: use one of {stains}")]
    UnknownStain { stain: String, stains: String },
    /// `--pattern` with a manifest, which lists its files.
    #[error(
        "--pattern applies to folders, but {} is a manifest\nhint: omit --pattern",
        .0.display()
    )]
    PatternOfManifest(PathBuf),
    /// The first multi-channel file lacks a channel. The text is one line, as `check-data` lists
    /// it.
    #[error("{} {error}", path.display())]
    Channels { path: PathBuf, error: ChannelError },
}

impl Images {
    /// Returns images in the default layout.
    #[must_use]
    pub fn plain(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            layout: Layout::default(),
        }
    }

    /// Returns whether the images are in a folder with the default layout.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.layout.pattern.is_none()
            && self.layout.channels.is_empty()
            && manifest::ManifestFormat::of(&self.path).is_none()
    }

    /// Returns the samples, sorted by id, with `stains` as channels. Samples may lack files. In a
    /// folder, the first multi-channel TIFF file is opened to check its channels. No other image is
    /// opened.
    ///
    /// # Errors
    ///
    /// [`ImagesError`] if there are no samples, or if they are inconsistent.
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
            None => self.tiff_files(&channels, &wanted)?,
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

    /// Returns the multi-channel TIFF files of the folder and ignores other files.
    fn tiff_files(
        &self,
        channels: &Arc<[String]>,
        wanted: &[&str],
    ) -> Result<Vec<Sample>, FindError> {
        let dir = &self.path;
        if dir.is_file() {
            return Err(FindError::NotAFolder(dir.clone()));
        }
        let names = names_in(dir)?;
        let samples = multichannel_samples(dir, &names, channels, wanted)?;
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
    /// Returns the name of a stain in the images.
    fn name_of<'a>(&'a self, stain: &'a str) -> &'a str {
        self.channels.get(stain).map_or(stain, String::as_str)
    }
}

impl fmt::Display for Layout {
    /// Part of the identity of a run that depends on the layout; empty by default.
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

/// Returns the names of a folder's entries, with replacement characters for invalid UTF-8.
fn names_in(dir: &Path) -> Result<Vec<String>, FindError> {
    let error = |cause| FindError::Io {
        path: dir.into(),
        cause,
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
