//! The models that are served: where they lie on disk, and which of them are loaded.
//!
//! A model is replaced only by one that was loaded, checked and warmed up; whoever holds the old
//! one goes on with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::ServeError;
use super::model::{Model, ModelLoader};
use rgby_score::ModelFile;

/// Name of a model's file in a folder of a version.
const FILE_NAME: &str = "model.onnx";

/// Where models lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// One file; it is version 1.
    File {
        /// The name by which clients know it.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A folder: `<version>/model.onnx` for one model, or `<name>/<version>/model.onnx` for any
    /// number. Versions are whole numbers from 1.
    Folder {
        /// The name of the model whose versions lie in the folder itself.
        name: String,
        /// The folder.
        path: PathBuf,
        /// How many of the newest versions of each model are loaded; at least 1.
        versions: usize,
    },
}

/// The versions of each model on disk.
type VersionFiles = BTreeMap<String, BTreeMap<u64, PathBuf>>;
/// The loaded versions of each model, the newest last; at least one.
type Models = BTreeMap<String, Vec<Arc<Model>>>;

/// The models.
#[derive(Debug)]
pub struct Repository {
    source: ModelSource,
    loader: ModelLoader,
    models: ArcSwap<Models>,
    /// Why a model's last loading failed. Also held by whoever loads: one at a time.
    failures: Mutex<BTreeMap<String, String>>,
}

/// A line of the repository's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it is loaded.
    pub ready: bool,
    /// Why its last loading failed.
    pub reason: String,
}

impl IndexEntry {
    /// Its state by the protocol's names.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.ready { "READY" } else { "UNAVAILABLE" }
    }
}

impl ModelSource {
    /// The models that are there now.
    fn files(&self) -> Result<VersionFiles, String> {
        match self {
            Self::File { name, path } => {
                let versions = BTreeMap::from([(1, path.clone())]);
                Ok(BTreeMap::from([(name.clone(), versions)]))
            }
            Self::Folder { name, path, .. } => {
                let mut files = VersionFiles::new();
                let own = versions(path)?;
                if !own.is_empty() {
                    files.insert(name.clone(), own);
                }
                for (name, path) in folders(path)? {
                    if name.parse::<u64>().is_ok() {
                        continue;
                    }
                    let versions = versions(&path)?;
                    if !versions.is_empty() {
                        files.insert(name, versions);
                    }
                }
                Ok(files)
            }
        }
    }

    /// How many of the newest versions are loaded.
    fn keep(&self) -> usize {
        match self {
            Self::File { .. } => 1,
            Self::Folder { versions, .. } => *versions,
        }
    }
}

/// The folders in a folder, by name.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let failed = |error| format!("{}: cannot be listed: {error}", path.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Kubernetes mounts volumes with hidden folders of its own.
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| !name.starts_with('.') && path.is_dir()) {
            found.push((name.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

/// The versions in a model's folder.
fn versions(path: &Path) -> Result<BTreeMap<u64, PathBuf>, String> {
    let version = |(name, path): (String, PathBuf)| {
        let version = name.parse().ok().filter(|version| *version > 0)?;
        let file = path.join(FILE_NAME);
        // `01` would be a second version 1.
        (name == u64::to_string(&version) && file.is_file()).then_some((version, file))
    };
    Ok(folders(path)?.into_iter().filter_map(version).collect())
}

impl Repository {
    /// One without any model loaded.
    #[must_use]
    pub fn new(source: ModelSource, loader: ModelLoader) -> Self {
        Self {
            source,
            loader,
            models: ArcSwap::default(),
            failures: Mutex::default(),
        }
    }

    /// What loads the models.
    #[must_use]
    pub fn loader(&self) -> &ModelLoader {
        &self.loader
    }

    /// The loaded model of that name, of that version or the newest.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if it is not loaded.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ServeError> {
        let models = self.models.load();
        let Some(versions) = models.get(name) else {
            return Err(ServeError::Unknown(format!(
                "unknown model: `{}` is not loaded, only {}",
                shown(name),
                names(&models)
            )));
        };
        let found = match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|model| model.version() == version),
        };
        found.cloned().ok_or_else(|| {
            let loaded = versions.iter().map(|model| model.version());
            let loaded: Vec<_> = loaded.collect();
            ServeError::Unknown(format!(
                "unknown version: model `{name}` is not loaded in version `{}`, only in {}",
                shown(version.unwrap_or_default()),
                loaded.join(", ")
            ))
        })
    }

    /// The name of the model that is loaded, where there is but one.
    ///
    /// # Errors
    ///
    /// [`ServeError::Invalid`] if there are several, [`ServeError::NotReady`] if there is none.
    pub fn only(&self) -> Result<String, ServeError> {
        let models = self.models.load();
        let mut all = models.keys();
        match (all.next(), all.next()) {
            (Some(name), None) => Ok(name.clone()),
            (None, _) => Err(ServeError::NotReady("no model is loaded".into())),
            _ => Err(ServeError::Invalid(format!(
                "say by the field `model` which of the models is to answer: {}",
                names(&models)
            ))),
        }
    }

    /// The versions of a model that are loaded, the newest last.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if there is none.
    pub fn versions(&self, name: &str) -> Result<Vec<Arc<Model>>, ServeError> {
        self.get(name, None)?;
        let models = self.models.load();
        Ok(models.get(name).cloned().unwrap_or_default())
    }

    /// The newest loaded version of each model, by name.
    #[must_use]
    pub fn newest(&self) -> Vec<Arc<Model>> {
        let models = self.models.load();
        models
            .values()
            .filter_map(|versions| versions.last().cloned())
            .collect()
    }

    /// Loads all models that are there; returns what was done, for the log.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unloadable`] for the first that cannot be loaded, or if there is none. The
    /// others are loaded all the same.
    pub fn load_all(&self) -> Result<Vec<String>, ServeError> {
        let unloadable = |reason| ServeError::Unloadable {
            name: "the models".into(),
            reason,
        };
        let files = self.source.files().map_err(unloadable)?;
        if files.is_empty() {
            return Err(unloadable(
                "there is none; the folder must hold <version>/model.onnx or \
                 <name>/<version>/model.onnx, with versions 1, 2, …"
                    .into(),
            ));
        }
        let mut notes = Vec::new();
        let mut failed = None;
        for name in files.keys() {
            match self.load(name) {
                Ok(note) => notes.push(note),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(notes), Err)
    }

    /// Loads a model anew, or for the first time: the newest versions that are there. What is
    /// loaded already and was not changed stays. Returns what was done.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if there is no such model, [`ServeError::Unloadable`] if it cannot
    /// be loaded; then all is as it was.
    pub fn load(&self, name: &str) -> Result<String, ServeError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let unloadable = |reason: String| ServeError::Unloadable {
            name: name.to_owned(),
            reason,
        };
        let files = self.source.files().map_err(unloadable)?;
        let Some(files) = files.get(name) else {
            return Err(ServeError::Unknown(format!(
                "unknown model: there is no `{}` in the repository",
                shown(name)
            )));
        };
        let newest = files.iter().rev().take(self.source.keep());
        let mut versions = Vec::new();
        for (version, path) in newest {
            let model = self.load_version(name, &version.to_string(), path);
            versions.push(model.map_err(|reason| {
                failures.insert(name.to_owned(), reason.clone());
                unloadable(reason)
            })?);
        }
        versions.reverse();
        let listed: Vec<_> = versions.iter().map(|model| model.version()).collect();
        let note = format!("model `{name}`, version {}", listed.join(", "));
        failures.remove(name);
        self.change(|models| {
            models.insert(name.to_owned(), versions.clone());
        });
        Ok(note)
    }

    fn load_version(&self, name: &str, version: &str, path: &Path) -> Result<Arc<Model>, String> {
        let file = ModelFile::open(path).map_err(|error| error.to_string())?;
        let loaded = self.get(name, Some(version)).ok();
        if let Some(same) = loaded.filter(|model| model.sha256() == file.sha256()) {
            return Ok(same);
        }
        let model = self.loader.load(name, version, &file);
        model.map_err(|error| error.to_string())
    }

    /// Takes a model out of service; requests that it has are still answered.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if it is not loaded.
    pub fn unload(&self, name: &str) -> Result<(), ServeError> {
        let _one_at_a_time = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        self.get(name, None)?;
        self.change(|models| {
            models.remove(name);
        });
        Ok(())
    }

    /// Takes all models out of service and waits until their engines are gone, for which all
    /// requests must have ended.
    pub fn close(&self) {
        self.change(BTreeMap::clear);
        self.loader.join();
    }

    fn change(&self, change: impl Fn(&mut Models)) {
        self.models.rcu(|models| {
            let mut models = Models::clone(models);
            change(&mut models);
            models
        });
    }

    /// The models that are there or loaded, by name and version.
    #[must_use]
    pub fn index(&self) -> Vec<IndexEntry> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let models = self.models.load();
        let mut found: BTreeMap<(String, u64), bool> = BTreeMap::new();
        // A folder that cannot be listed now has no other models to offer.
        for (name, versions) in self.source.files().unwrap_or_default() {
            for version in versions.into_keys() {
                found.insert((name.clone(), version), false);
            }
        }
        for model in models.values().flatten() {
            let version = model.version().parse().unwrap_or_default();
            found.insert((model.name().to_owned(), version), true);
        }
        let entry = |((name, version), ready): ((String, u64), bool)| IndexEntry {
            reason: failures.get(&name).cloned().unwrap_or_default(),
            version: version.to_string(),
            name,
            ready,
        };
        found.into_iter().map(entry).collect()
    }
}

/// The models' names, for a message.
fn names(models: &Models) -> String {
    let names: Vec<_> = models.keys().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A client's word, as much of it as fits into a message.
fn shown(name: &str) -> String {
    const MOST: usize = 64;
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(MOST).map(printable).collect()
}
