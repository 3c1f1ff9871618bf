//! Local files that stand for objects in stores.
//!
//! Only images are read right out of a store. A model or a list is fetched first; results are
//! written here, where files can be replaced as one step, and put into the store when they are
//! complete. Each folder of a store has a local one in its stead, so that a path below it and the
//! object's URL are told from one another by how they begin.

mod copies;
mod images;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use tempfile::TempDir;

use self::copies::StoreCopies;
pub use self::images::StoreFiles;
use super::render;
use crate::atomic_file;
use crate::score::{RemoteParts, parts_folder};
use crate::store::{Location, Store, StoreError, StoreErrorKind, StoreOptions, Url};

/// Most bytes of a file that is fetched: what no self-contained ONNX file can exceed.
const MOST_BYTES: u64 = 2 << 30;

/// The local folders in the place of remote ones.
#[derive(Debug)]
pub struct Stage {
    options: StoreOptions,
    /// Removed with all that is in it.
    folder: Option<TempDir>,
    stand_ins: Vec<StandIn>,
}

/// A local folder in the place of a remote one.
#[derive(Debug)]
struct StandIn {
    local: PathBuf,
    store: Store,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Output,
}

impl Stage {
    /// An empty one.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        Self {
            options,
            folder: None,
            stand_ins: Vec::new(),
        }
    }

    /// A local path of the file that `flag` names: it is fetched if it is elsewhere.
    ///
    /// # Errors
    ///
    /// It cannot be had; a wrong URL.
    pub fn input(&mut self, flag: &str, path: &Path) -> anyhow::Result<PathBuf> {
        let url = match located(flag, path)? {
            Location::Remote(url) => url,
            Location::Local(path) => return Ok(path),
        };
        let (stand_in, file) = self.stand_in(flag, &url, Role::Input)?;
        let got = stand_in.store.get(url.file_name(), MOST_BYTES);
        let (bytes, _) = got.with_context(|| flag.to_owned())?;
        atomic_file::write_atomic(&file, &bytes)?;
        Ok(file)
    }

    /// A local path of the file that `flag` names and that will be written;
    /// [`publish`](Self::publish) puts it where it belongs.
    ///
    /// # Errors
    ///
    /// Nothing can be written there; a wrong URL.
    pub fn output(&mut self, flag: &str, path: &Path) -> anyhow::Result<PathBuf> {
        let url = match located(flag, path)? {
            Location::Remote(url) => url,
            Location::Local(path) => return Ok(path),
        };
        let fail = |kind| StoreError {
            url: url.to_string(),
            kind,
        };
        if url.scheme().is_web() {
            return Err(fail(StoreErrorKind::ReadOnly)).with_context(|| flag.to_owned());
        }
        ensure!(
            !path.as_os_str().as_encoded_bytes().ends_with(b"/"),
            "{flag} {url}/ is a folder; name a file in it"
        );
        let (_, file) = self.stand_in(flag, &url, Role::Output)?;
        Ok(file)
    }

    /// Fetches what a store has of the unfinished run that writes `output`: what the run has done,
    /// and with `resume` the parts themselves. Returns where parts are to be copied, if `output`
    /// is in a store.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or does not let us.
    pub fn parts(
        &self,
        output: &Path,
        resume: bool,
    ) -> anyhow::Result<Option<Box<dyn RemoteParts>>> {
        let Some(stand_in) = self.output_of(output) else {
            return Ok(None);
        };
        let folder = parts_folder(output);
        let name = name_of(&folder)?;
        let copies = StoreCopies::fetch(&stand_in.store, name, &folder, resume)?;
        Ok(Some(Box::new(copies)))
    }

    /// Fetches a result that is in a store already; does nothing where there is none.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or does not let us.
    pub fn fetch_result(&self, path: &Path) -> anyhow::Result<()> {
        let Some(stand_in) = self.output_of(path) else {
            return Ok(());
        };
        match stand_in.store.get(name_of(path)?, MOST_BYTES) {
            Ok((bytes, _)) => Ok(atomic_file::write_atomic(path, &bytes)?),
            Err(error) if matches!(error.kind, StoreErrorKind::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the results that were written into the stores where they belong, `last` after all
    /// others, and removes there the `stale` file, if it was not written.
    ///
    /// # Errors
    ///
    /// A store cannot be reached, or does not let us.
    pub fn publish(&self, last: &Path, stale: &Path) -> anyhow::Result<()> {
        for stand_in in self.outputs() {
            for file in files_in(&stand_in.local)? {
                if file != last {
                    stand_in.put(&file)?;
                }
            }
        }
        if !stale.exists()
            && let Some(stand_in) = self.output_of(stale)
        {
            stand_in.store.delete(name_of(stale)?)?;
        }
        match self.output_of(last) {
            Some(stand_in) => stand_in.put(last),
            None => Ok(()),
        }
    }

    /// How a path is called where it belongs.
    #[must_use]
    pub fn shown(&self, path: &Path) -> String {
        match Location::parse(path.as_os_str()) {
            Ok(Location::Remote(url)) => url.to_string(),
            _ => self.rename(&path.display().to_string()),
        }
    }

    /// An error about local files as one about those for which they stand.
    #[must_use]
    pub fn named(&self, error: anyhow::Error) -> anyhow::Error {
        if self.stand_ins.is_empty() {
            return error;
        }
        anyhow!(self.rename(&render(&error)))
    }

    /// `text` with URLs in the place of local paths.
    fn rename(&self, text: &str) -> String {
        let rename = |text: String, stand_in: &StandIn| {
            let local = format!("{}/", stand_in.local.display());
            text.replace(&local, &stand_in.store.url().folder())
        };
        self.stand_ins.iter().fold(text.to_owned(), rename)
    }

    fn outputs(&self) -> impl Iterator<Item = &StandIn> {
        let stand_ins = self.stand_ins.iter();
        stand_ins.filter(|stand_in| stand_in.role == Role::Output)
    }

    /// What stands in for the folder of the result `path`.
    fn output_of(&self, path: &Path) -> Option<&StandIn> {
        let folder = path.parent()?;
        self.outputs().find(|stand_in| stand_in.local == folder)
    }

    /// What stands in for the folder of `url`, and for `url` itself.
    fn stand_in(
        &mut self,
        flag: &str,
        url: &Url,
        role: Role,
    ) -> anyhow::Result<(&StandIn, PathBuf)> {
        ensure!(
            !url.key().is_empty(),
            "{flag} {url} names no file; add its name"
        );
        let folder = url.parent();
        let same = |stand_in: &StandIn| stand_in.role == role && *stand_in.store.url() == folder;
        let known = self.stand_ins.iter().position(same);
        let at = known.unwrap_or(self.stand_ins.len());
        if known.is_none() {
            let store = Store::open(&folder, &self.options).with_context(|| flag.to_owned())?;
            let local = self.folder()?.join(at.to_string());
            fs::create_dir(&local)?;
            self.stand_ins.push(StandIn { local, store, role });
        }
        let stand_in = &self.stand_ins[at];
        Ok((stand_in, stand_in.local.join(url.file_name())))
    }

    /// The folder of all stand-ins.
    fn folder(&mut self) -> anyhow::Result<&Path> {
        let folder = match &mut self.folder {
            Some(folder) => folder,
            none => {
                let made = tempfile::Builder::new().prefix("rgby-").tempdir();
                none.insert(made.context("no temporary folder can be made; set TMPDIR")?)
            }
        };
        Ok(folder.path())
    }
}

impl StandIn {
    fn put(&self, file: &Path) -> anyhow::Result<()> {
        Ok(self.store.put_file(name_of(file)?, file)?)
    }
}

/// Where the file or folder is that `flag` names.
///
/// # Errors
///
/// It is a URL that is wrong.
pub fn located(flag: &str, path: &Path) -> anyhow::Result<Location> {
    Location::parse(path.as_os_str()).with_context(|| flag.to_owned())
}

/// The ordinary files in a folder.
fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
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

/// The name of a file that stands for an object.
fn name_of(path: &Path) -> anyhow::Result<&str> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.with_context(|| format!("{} is no name of an object", path.display()))
}
