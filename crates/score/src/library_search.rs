//! Search for the shared library of ONNX Runtime.
//!
//! A candidate is loaded and its version checked before it is passed to `ort`, because `ort` cannot
//! try a second library after a first one failed.

use std::cmp::Reverse;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::EngineError;

/// The oldest minor version (1.x) of ONNX Runtime that offers the API that `ort` is built for.
const MINIMUM_MINOR: u32 = ort::MINOR_VERSION;

/// A library that loads and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OnnxRuntimeLibrary {
    pub path: PathBuf,
    /// `1.32.0`, or `1.32` if the file name does not contain more.
    pub version: String,
}

/// The first usable library, if any, and the candidates before it.
#[derive(Debug, Default)]
pub(super) struct LibrarySearch {
    pub found: Option<OnnxRuntimeLibrary>,
    /// Searched places.
    pub tried: Vec<String>,
    /// Unusable libraries, each with the reason.
    pub rejected: Vec<String>,
}

impl LibrarySearch {
    /// Selects the first usable candidate, unless one is selected already.
    fn consider(&mut self, candidates: impl FnOnce(&mut Vec<String>) -> Vec<PathBuf>) {
        if self.found.is_some() {
            return;
        }
        for path in candidates(&mut self.tried) {
            match check(&path) {
                Ok(library) => {
                    self.found = Some(library);
                    return;
                }
                Err(reason) => self.rejected.push(format!("{}: {reason}", path.display())),
            }
        }
    }
}

/// Settings that determine where to search.
#[derive(Debug, Default)]
pub(super) struct SearchPaths {
    pub ort_lib: Option<PathBuf>,
    pub ort_dylib_path: Option<PathBuf>,
    pub virtual_env: Option<PathBuf>,
    pub conda_prefix: Option<PathBuf>,
    pub library_path: Option<OsString>,
    /// Whether to run `python3` for its package folders and `ldconfig` for its cache.
    pub run_programs: bool,
}

impl SearchPaths {
    /// Reads the environment of this process; `ort_lib` is the value of `--ort-lib`.
    pub fn from_env(ort_lib: Option<&Path>) -> Self {
        let path = |name| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        Self {
            ort_lib: ort_lib.map(Path::to_path_buf),
            ort_dylib_path: path("ORT_DYLIB_PATH"),
            virtual_env: path("VIRTUAL_ENV"),
            conda_prefix: path("CONDA_PREFIX"),
            library_path: env::var_os(LIBRARY_PATH),
            run_programs: true,
        }
    }

    /// Searches a library, in the documented order.
    ///
    /// # Errors
    ///
    /// [`EngineError::Library`] if an explicitly named library cannot be used: another one must not
    /// replace it silently.
    pub fn search(&self) -> Result<LibrarySearch, EngineError> {
        let mut search = LibrarySearch::default();
        let named = [
            ("--ort-lib", &self.ort_lib),
            ("ORT_DYLIB_PATH", &self.ort_dylib_path),
        ];
        for (origin, path) in named {
            let Some(path) = path else {
                search.tried.push(format!("{origin}: not given"));
                continue;
            };
            let library = check(path).map_err(|reason| EngineError::Library {
                origin,
                path: path.clone(),
                reason,
                minimum: MINIMUM_MINOR,
            })?;
            search.found = Some(library);
            return Ok(search);
        }
        search.consider(|tried| self.wheels(tried));
        search.consider(|tried| self.system(tried));
        Ok(search)
    }

    /// Returns the libraries of the `onnxruntime` wheel in the active Python environment.
    fn wheels(&self, tried: &mut Vec<String>) -> Vec<PathBuf> {
        let prefixes: Vec<&PathBuf> = [&self.virtual_env, &self.conda_prefix]
            .into_iter()
            .filter_map(Option::as_ref)
            .collect();
        let mut folders: Vec<PathBuf> = prefixes.iter().flat_map(|p| site_packages(p)).collect();
        if prefixes.is_empty() && self.run_programs {
            folders = python_site_packages();
        }
        for folder in &folders {
            tried.push(format!("Python packages in {}", folder.display()));
        }
        folders
            .iter()
            .flat_map(|f| libraries_in(&f.join("onnxruntime").join("capi")))
            .collect()
    }

    /// Returns the libraries in the search path of the dynamic linker.
    fn system(&self, tried: &mut Vec<String>) -> Vec<PathBuf> {
        tried.push(format!(
            "system libraries ({LIBRARY_PATH}, ldconfig, /usr/local/lib)"
        ));
        let folders = self.library_path.iter().flat_map(env::split_paths);
        let mut found: Vec<PathBuf> = folders.flat_map(|folder| libraries_in(&folder)).collect();
        if self.run_programs {
            found.extend(ldconfig());
            found.extend(
                ["/usr/local/lib", "/opt/homebrew/lib"]
                    .iter()
                    .flat_map(|d| libraries_in(Path::new(d))),
            );
        }
        found
    }
}

const LIBRARY_PATH: &str = if cfg!(windows) {
    "PATH"
} else if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// Loads a library and checks its version. It stays loaded.
fn check(path: &Path) -> Result<OnnxRuntimeLibrary, String> {
    // The loader would search a relative name in the folder of this program first.
    let path = fs::canonicalize(path).map_err(|e| e.to_string())?;
    ort::util::preload_dylib(&path).map_err(|e| innermost(&e))?;
    let Some(minor) = ort::util::probe(&path) else {
        return Err("is a shared library, but not ONNX Runtime 1.x".into());
    };
    if minor < MINIMUM_MINOR {
        return Err(format!(
            "version 1.{minor} is too old, 1.{MINIMUM_MINOR} or newer is needed"
        ));
    }
    let named = version_in(&path).filter(|v| v.get(..2) == Some(&[1, minor]));
    let version = named.map_or_else(|| format!("1.{minor}"), |parts| join(&parts));
    Ok(OnnxRuntimeLibrary { path, version })
}

/// Returns the message of the innermost cause: the error of the linker.
fn innermost(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// Returns the ONNX Runtime libraries in a folder, the newest first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| is_library(p))
        .collect();
    found.sort_by_key(|p| (Reverse(version_in(p)), p.clone()));
    found
}

fn is_library(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    if cfg!(windows) {
        name == "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        name.starts_with("libonnxruntime.") && path.extension().is_some_and(|e| e == "dylib")
    } else {
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
    }
}

/// Returns the version in `libonnxruntime.so.1.32.0` or `libonnxruntime.1.32.0.dylib`.
fn version_in(path: &Path) -> Option<Vec<u32>> {
    let name = path.file_name()?.to_str()?;
    let numbers: Vec<u32> = name
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect();
    (!numbers.is_empty()).then_some(numbers)
}

fn join(version: &[u32]) -> String {
    version
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(".")
}

/// Returns the folders of installed packages in a Python environment.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        return vec![prefix.join("Lib").join("site-packages")];
    }
    let Ok(entries) = fs::read_dir(prefix.join("lib")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().starts_with("python3"))
        .map(|e| e.path().join("site-packages"))
        .collect();
    found.sort();
    found
}

/// Returns the package folders of the `python3` on the path, those of the user first.
fn python_site_packages() -> Vec<PathBuf> {
    const SCRIPT: &str = "import site, sysconfig\n\
        print(site.getusersitepackages())\n\
        print(*site.getsitepackages(), sep='\\n')\n\
        print(sysconfig.get_path('purelib'))\n\
        print(sysconfig.get_path('platlib'))";
    // `-I` keeps modules in the current folder from being imported.
    let program = if cfg!(windows) { "python" } else { "python3" };
    let mut folders: Vec<PathBuf> = Vec::new();
    for line in lines_of(Command::new(program).args(["-I", "-c", SCRIPT])) {
        let folder = PathBuf::from(line);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Returns the ONNX Runtime libraries in the cache of the linker.
fn ldconfig() -> Vec<PathBuf> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .map(|program| lines_of(Command::new(program).arg("-p")))
        .find(|lines| !lines.is_empty())
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line.split_once(" => "))
        .map(|(_, path)| PathBuf::from(path.trim()))
        .filter(|path| is_library(path))
        .collect()
}

/// Returns the output of a program, or nothing if it is missing or fails.
fn lines_of(command: &mut Command) -> Vec<String> {
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_file_is_rejected_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "not a library").unwrap();
        let paths = SearchPaths {
            ort_lib: Some(file.path().into()),
            ..SearchPaths::default()
        };
        let error = paths.search().unwrap_err().to_string();
        assert!(error.contains("--ort-lib"), "{error}");
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_missing_library_is_an_error() {
        let paths = SearchPaths {
            ort_dylib_path: Some("/no/such/libonnxruntime.so".into()),
            ..SearchPaths::default()
        };
        let error = paths.search().unwrap_err().to_string();
        assert!(
            error.contains("ORT_DYLIB_PATH") && error.contains("No such file"),
            "{error}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn broken_candidates_are_skipped_and_listed() {
        let env = tempfile::tempdir().unwrap();
        let capi = env
            .path()
            .join("lib/python3.12/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.24.1"] {
            fs::write(capi.join(name), "not a library").unwrap();
        }
        fs::write(capi.join("libonnxruntime_providers_shared.so"), "").unwrap();
        let paths = SearchPaths {
            virtual_env: Some(env.path().into()),
            ..SearchPaths::default()
        };
        let search = paths.search().unwrap();
        assert_eq!(search.found, None);
        let tried = search.tried.join("\n");
        assert!(tried.contains("python3.12/site-packages"), "{tried}");
        assert!(tried.contains("system libraries"), "{tried}");
        let [newer, older] = &search.rejected[..] else {
            panic!("{:?}", search.rejected)
        };
        assert!(
            newer.contains("so.1.24.1: ") && older.contains("so.1.9.0: "),
            "{newer}\n{older}"
        );
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |name: &str| version_in(Path::new(name));
        assert_eq!(version("/x/libonnxruntime.so.1.32.0"), Some(vec![1, 32, 0]));
        assert_eq!(
            version("/x/libonnxruntime.1.9.0.dylib"),
            Some(vec![1, 9, 0])
        );
        assert_eq!(version("/x/libonnxruntime.so"), None);
        assert!(version("libonnxruntime.so.1.32.0") > version("libonnxruntime.so.1.9.0"));
    }
}
