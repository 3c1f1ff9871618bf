//! The model repository: models on disk, and the loaded ones.
//!
//! A model is replaced only after the new one is loaded, validated and warmed up. Requests that
//! already hold the old model finish with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::model::{Model, ModelLoader};
use super::{ServeError, one_line};
use rgby_score::ModelFile;

/// Name of the model file in a version folder.
const FILE_NAME: &str = "model.onnx";

/// Location of the models on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A single file, served as version 1.
    File {
        /// Model name that clients use.
        name: String,
        path: PathBuf,
    },
    /// A folder with `<version>/model.onnx` for one model, or `<name>/<version>/model.onnx` for
    /// several. Versions are integers from 1.
    Folder {
        /// Name of the model whose versions lie directly in the folder.
        name: String,
        path: PathBuf,
        /// Number of newest versions to load per model; at least 1.
        versions: usize,
    },
}

/// The versions of each model on disk.
type VersionFiles = BTreeMap<String, BTreeMap<u64, PathBuf>>;
/// The loaded versions of each model, the newest last; at least one per model.
type LoadedModels = BTreeMap<String, Vec<Arc<Model>>>;

/// The models on disk and the loaded ones.
#[derive(Debug)]
pub struct Repository {
    source: ModelSource,
    loader: ModelLoader,
    models: ArcSwap<LoadedModels>,
    /// Errors of the last load of each model. Locked during a load, so that loads are sequential.
    failures: Mutex<BTreeMap<String, String>>,
}

/// One version of a model in the repository's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: String,
    pub version: String,
    /// Whether the version is loaded.
    pub ready: bool,
    /// Error of the model's last load; empty if it succeeded.
    pub reason: String,
}

impl IndexEntry {
    /// Returns the protocol's name of the state.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.ready { "READY" } else { "UNAVAILABLE" }
    }
}

impl ModelSource {
    /// Returns the models that are on disk now.
    fn files(&self) -> Result<VersionFiles, String> {
        match self {
            Self::File { name, path } => {
                let versions = BTreeMap::from([(1, path.clone())]);
                Ok(BTreeMap::from([(name.clone(), versions)]))
            }
            Self::Folder { name, path, .. } => {
                let mut files = VersionFiles::new();
                let top_level = versions(path)?;
                if !top_level.is_empty() {
                    files.insert(name.clone(), top_level);
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

    /// Returns the number of newest versions to load.
    fn version_count(&self) -> usize {
        match self {
            Self::File { .. } => 1,
            Self::Folder { versions, .. } => *versions,
        }
    }
}

/// Returns names and paths of the visible subfolders.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let failed = |error| format!("{}: cannot list the folder: {error}", path.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Hidden folders are skipped, because volumes of Kubernetes contain some.
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| !name.starts_with('.') && path.is_dir()) {
            found.push((name.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

/// Returns the versions in a model's folder.
fn versions(path: &Path) -> Result<BTreeMap<u64, PathBuf>, String> {
    let version = |(name, path): (String, PathBuf)| {
        let version = name.parse().ok().filter(|version| *version > 0)?;
        let file = path.join(FILE_NAME);
        // Without leading zeros: `01` would be a second version 1.
        (name == u64::to_string(&version) && file.is_file()).then_some((version, file))
    };
    Ok(folders(path)?.into_iter().filter_map(version).collect())
}

impl Repository {
    /// Creates a repository without loaded models.
    #[must_use]
    pub fn new(source: ModelSource, loader: ModelLoader) -> Self {
        Self {
            source,
            loader,
            models: ArcSwap::default(),
            failures: Mutex::default(),
        }
    }

    #[must_use]
    pub fn loader(&self) -> &ModelLoader {
        &self.loader
    }

    /// Returns a loaded model. `version` defaults to the newest one.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if the model or the version is not loaded.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ServeError> {
        let models = self.models.load();
        let Some(versions) = models.get(name) else {
            return Err(ServeError::Unknown(format!(
                "unknown model: `{}` is not loaded; loaded models: {}",
                truncated(name),
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
                "unknown version: `{}` of model `{name}` is not loaded; loaded versions: {}",
                truncated(version.unwrap_or_default()),
                loaded.join(", ")
            ))
        })
    }

    /// Returns the name of the only loaded model.
    ///
    /// # Errors
    ///
    /// [`ServeError::Invalid`] if there are several, [`ServeError::NotReady`] if there is none.
    pub fn only_model(&self) -> Result<String, ServeError> {
        let models = self.models.load();
        let mut all = models.keys();
        match (all.next(), all.next()) {
            (Some(name), None) => Ok(name.clone()),
            (None, _) => Err(ServeError::NotReady("no model is loaded".into())),
            _ => Err(ServeError::Invalid(format!(
                "several models are loaded; set the field `model` to one of {}",
                names(&models)
            ))),
        }
    }

    /// Returns the loaded versions of a model, the newest last.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if the model is not loaded.
    pub fn versions(&self, name: &str) -> Result<Vec<Arc<Model>>, ServeError> {
        self.get(name, None)?;
        let models = self.models.load();
        Ok(models.get(name).cloned().unwrap_or_default())
    }

    /// Returns the newest loaded version of each model, sorted by name.
    #[must_use]
    pub fn newest(&self) -> Vec<Arc<Model>> {
        let models = self.models.load();
        models
            .values()
            .filter_map(|versions| versions.last().cloned())
            .collect()
    }

    /// Loads all models on disk. Returns a description of each for the log.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unloadable`] for the first model that cannot be loaded, or if there are none.
    /// The other models are loaded nevertheless.
    pub fn load_all(&self) -> Result<Vec<String>, ServeError> {
        let unloadable = |reason| ServeError::Unloadable {
            name: "the models".into(),
            reason,
        };
        let files = self.source.files().map_err(unloadable)?;
        if files.is_empty() {
            return Err(unloadable(
                "no model found; the folder must contain <version>/model.onnx or \
                 <name>/<version>/model.onnx, with versions 1, 2, …"
                    .into(),
            ));
        }
        let mut notes = Vec::new();
        let mut first_error = None;
        for name in files.keys() {
            match self.load(name) {
                Ok(note) => notes.push(note),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(notes), Err)
    }

    /// Loads or reloads the newest versions of a model from disk. Versions that are already loaded
    /// and unchanged are kept. Returns a description for the log.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if there is no such model, [`ServeError::Unloadable`] if it cannot
    /// be loaded. The loaded models then stay unchanged.
    pub fn load(&self, name: &str) -> Result<String, ServeError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let unloadable = |reason: String| ServeError::Unloadable {
            name: name.to_owned(),
            reason,
        };
        let files = self.source.files().map_err(unloadable)?;
        let Some(files) = files.get(name) else {
            return Err(ServeError::Unknown(format!(
                "unknown model: `{}` is not in the repository",
                truncated(name)
            )));
        };
        let newest = files.iter().rev().take(self.source.version_count());
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
        let file = ModelFile::open(path).map_err(|error| one_line(&error))?;
        let loaded = self.get(name, Some(version)).ok();
        if let Some(same) = loaded.filter(|model| model.sha256() == file.sha256()) {
            return Ok(same);
        }
        let model = self.loader.load(name, version, &file);
        model.map_err(|error| one_line(&error))
    }

    /// Unloads a model after its current requests.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unknown`] if the model is not loaded.
    pub fn unload(&self, name: &str) -> Result<(), ServeError> {
        let _load_lock = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        self.get(name, None)?;
        self.change(|models| {
            models.remove(name);
        });
        Ok(())
    }

    /// Unloads all models and waits until their sessions have ended. All requests must have ended
    /// before.
    pub fn close(&self) {
        self.change(BTreeMap::clear);
        self.loader.join();
    }

    fn change(&self, change: impl Fn(&mut LoadedModels)) {
        self.models.rcu(|models| {
            let mut models = LoadedModels::clone(models);
            change(&mut models);
            models
        });
    }

    /// Returns the models on disk and the loaded ones, sorted by name and version.
    #[must_use]
    pub fn index(&self) -> Vec<IndexEntry> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let models = self.models.load();
        let mut found: BTreeMap<(String, u64), bool> = BTreeMap::new();
        // If the folder cannot be listed, the index has only the loaded models.
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

/// Returns the quoted names of the models for a message.
fn names(models: &LoadedModels) -> String {
    let names: Vec<_> = models.keys().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Returns the first characters of a name from a request, without control characters.
fn truncated(name: &str) -> String {
    const MAX_CHARS: usize = 64;
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(MAX_CHARS).map(printable).collect()
}
