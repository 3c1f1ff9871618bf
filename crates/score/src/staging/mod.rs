//! Local copies of files in object stores.
//!
//! Only images are read directly from a store. Models and lists are downloaded first. Results are
//! written locally, where a file can be replaced atomically, and uploaded when they are complete.
//! Each remote folder has its own local folder; a [`StagedFile`] pairs a local path with the name
//! that messages show.

mod part_copies;
mod store_images;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::part_copies::PartCopies;
pub use self::store_images::{StoreImages, StoreImagesError};
use super::{RemoteParts, parts_folder};
use rgby_common::atomic_file;
use rgby_store::{Location, LocationError, Store, StoreError, StoreErrorKind, StoreOptions, Url};

/// Largest file that is downloaded: no self-contained ONNX file is larger.
const MAX_BYTES: u64 = 2 << 30;

/// A file to read or write: its local path, and its name in messages, which may be a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    path: PathBuf,
    name: PathBuf,
}

impl StagedFile {
    /// Returns a file that is shown by its local path.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            name: path.clone(),
            path,
        }
    }

    /// Returns the local path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path or URL to show.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Returns the file that `derive` names, given the name of this one.
    #[must_use]
    pub fn derived(&self, derive: impl Fn(&Path) -> PathBuf) -> Self {
        Self {
            path: derive(&self.path),
            name: derive(&self.name),
        }
    }
}

impl fmt::Display for StagedFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.name.display().fmt(f)
    }
}

/// Why a file could not be staged or uploaded.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    #[error("{flag}: {cause}")]
    Location {
        flag: &'static str,
        cause: LocationError,
    },
    #[error("{flag}: {cause}")]
    Flag {
        flag: &'static str,
        cause: StoreError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a part of the unfinished run: {0}")]
    Part(StoreError),
    #[error("{flag} {url}/ is a folder\nhint: name a file in it")]
    Folder { flag: &'static str, url: Url },
    #[error("{flag} {url} names no file\nhint: add its name")]
    NoFile { flag: &'static str, url: Url },
    #[error("{}: is not a valid object name", .0.display())]
    ObjectName(PathBuf),
    #[error("cannot create a temporary folder: {0}\nhint: set TMPDIR to a writable folder")]
    TempFolder(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The local folders that hold copies of remote files; removed when dropped.
#[derive(Debug)]
pub struct StagedFiles {
    options: StoreOptions,
    root: Option<TempDir>,
    folders: Vec<StagedFolder>,
}

/// A local folder for the files of one remote folder.
#[derive(Debug)]
struct StagedFolder {
    local: PathBuf,
    store: Store,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Input,
    Output,
}

impl StagedFiles {
    /// Stages nothing yet; no folder is created before one is needed.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        Self {
            options,
            root: None,
            folders: Vec::new(),
        }
    }

    /// Downloads the file that the option `flag` names, if it is remote.
    ///
    /// # Errors
    ///
    /// The URL is invalid, or the file cannot be read.
    pub fn input(&mut self, flag: &'static str, path: &Path) -> Result<StagedFile, StagingError> {
        let url = match parse_location(flag, path)? {
            Location::Remote(url) => url,
            Location::Local(path) => return Ok(StagedFile::local(path)),
        };
        let (folder, file) = self.stage(flag, &url, Direction::Input)?;
        let (bytes, _) = folder
            .store
            .get(url.file_name(), MAX_BYTES)
            .map_err(|cause| StagingError::Flag { flag, cause })?;
        atomic_file::write_atomic(file.path(), &bytes)?;
        Ok(file)
    }

    /// Returns where to write the file that the option `flag` names; [`publish`](Self::publish)
    /// uploads it, if it is remote.
    ///
    /// # Errors
    ///
    /// The URL is invalid, or names a folder or a web server.
    pub fn output(&mut self, flag: &'static str, path: &Path) -> Result<StagedFile, StagingError> {
        let url = match parse_location(flag, path)? {
            Location::Remote(url) => url,
            Location::Local(path) => return Ok(StagedFile::local(path)),
        };
        if url.scheme().is_web() {
            let cause = StoreError {
                url: url.to_string(),
                kind: StoreErrorKind::ReadOnly,
            };
            return Err(StagingError::Flag { flag, cause });
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(StagingError::Folder { flag, url });
        }
        Ok(self.stage(flag, &url, Direction::Output)?.1)
    }

    /// Downloads the manifest of the unfinished run that writes `output`, and with `resume` its
    /// parts. Returns where to copy new parts, or `None` for a local `output`.
    ///
    /// # Errors
    ///
    /// The store is not reachable or denies access.
    pub fn parts(
        &self,
        output: &StagedFile,
        resume: bool,
    ) -> Result<Option<Box<dyn RemoteParts>>, StagingError> {
        let Some(folder) = self.output_folder(output) else {
            return Ok(None);
        };
        let parts = parts_folder(output.path());
        let name = object_name(&parts)?;
        let copies = PartCopies::fetch(&folder.store, name, &parts, resume)?;
        Ok(Some(Box::new(copies)))
    }

    /// Downloads the file beside the remote input `file` that `derive` names; does nothing if
    /// there is none.
    ///
    /// # Errors
    ///
    /// The store is not reachable or denies access.
    pub fn fetch_beside(
        &self,
        file: &StagedFile,
        derive: impl Fn(&Path) -> PathBuf,
    ) -> Result<(), StagingError> {
        let is_input = |folder: &&StagedFolder| folder.direction == Direction::Input;
        let mut inputs = self.folders.iter().filter(is_input);
        match inputs.find(|folder| Some(folder.local.as_path()) == file.path().parent()) {
            Some(folder) => folder.download(&derive(file.path())),
            None => Ok(()),
        }
    }

    /// Downloads a result that is already in a store; does nothing if there is none.
    ///
    /// # Errors
    ///
    /// The store is not reachable or denies access.
    pub fn fetch_result(&self, file: &StagedFile) -> Result<(), StagingError> {
        match self.output_folder(file) {
            Some(folder) => folder.download(file.path()),
            None => Ok(()),
        }
    }

    /// Uploads all written results, `last` after all others. Deletes each remote `stale` file of
    /// which no local one was written.
    ///
    /// # Errors
    ///
    /// A store is not reachable or denies access.
    pub fn publish(&self, last: &StagedFile, stale: &[&StagedFile]) -> Result<(), StagingError> {
        for folder in self.output_folders() {
            for file in files_in(&folder.local)? {
                if file != last.path() {
                    folder.upload(&file)?;
                }
            }
        }
        for file in stale {
            if !file.path().exists()
                && let Some(folder) = self.output_folder(file)
            {
                folder.store.delete(object_name(file.path())?)?;
            }
        }
        match self.output_folder(last) {
            Some(folder) => folder.upload(last.path()),
            None => Ok(()),
        }
    }

    fn output_folders(&self) -> impl Iterator<Item = &StagedFolder> {
        let folders = self.folders.iter();
        folders.filter(|folder| folder.direction == Direction::Output)
    }

    /// Returns the staged folder of a remote result.
    fn output_folder(&self, file: &StagedFile) -> Option<&StagedFolder> {
        let parent = file.path().parent()?;
        self.output_folders().find(|folder| folder.local == parent)
    }

    /// Returns the staged folder of `url`, and `url` as a staged file.
    fn stage(
        &mut self,
        flag: &'static str,
        url: &Url,
        direction: Direction,
    ) -> Result<(&StagedFolder, StagedFile), StagingError> {
        if url.key().is_empty() {
            let url = url.clone();
            return Err(StagingError::NoFile { flag, url });
        }
        let parent = url.parent();
        let same =
            |folder: &StagedFolder| folder.direction == direction && *folder.store.url() == parent;
        let existing = self.folders.iter().position(same);
        let at = existing.unwrap_or(self.folders.len());
        if existing.is_none() {
            let store = Store::open(&parent, &self.options)
                .map_err(|cause| StagingError::Flag { flag, cause })?;
            let local = self.root()?.join(at.to_string());
            fs::create_dir(&local)?;
            self.folders.push(StagedFolder {
                local,
                store,
                direction,
            });
        }
        let folder = &self.folders[at];
        let file = StagedFile {
            path: folder.local.join(url.file_name()),
            name: url.to_string().into(),
        };
        Ok((folder, file))
    }

    /// Returns the folder of all staged folders.
    fn root(&mut self) -> Result<&Path, StagingError> {
        let root = match &mut self.root {
            Some(root) => root,
            none => {
                let created = tempfile::Builder::new().prefix("rgby-").tempdir();
                none.insert(created.map_err(StagingError::TempFolder)?)
            }
        };
        Ok(root.path())
    }
}

impl StagedFolder {
    /// Downloads an object to the local `file`; does nothing if there is none.
    fn download(&self, file: &Path) -> Result<(), StagingError> {
        match self.store.get(object_name(file)?, MAX_BYTES) {
            Ok((bytes, _)) => Ok(atomic_file::write_atomic(file, &bytes)?),
            Err(error) if matches!(error.kind, StoreErrorKind::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn upload(&self, file: &Path) -> Result<(), StagingError> {
        Ok(self.store.put_file(object_name(file)?, file)?)
    }
}

/// Parses the path or URL that the option `flag` names.
///
/// # Errors
///
/// The URL is invalid.
pub fn parse_location(flag: &'static str, path: &Path) -> Result<Location, StagingError> {
    Location::parse(path.as_os_str()).map_err(|cause| StagingError::Location { flag, cause })
}

/// Returns the regular files in a folder, sorted.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the object name of a staged path.
fn object_name(path: &Path) -> Result<&str, StagingError> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.ok_or_else(|| StagingError::ObjectName(path.to_owned()))
}
