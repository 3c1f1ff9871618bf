//! Where ONNX Runtime's shared library may lie, in the order in which it is looked for.
//!
//! A candidate is loaded and asked for its version before it is handed to `ort`: `ort` cannot
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
pub(super) struct Library {
    pub path: PathBuf,
    /// As in `1.32.0`, or `1.32` where the file's name does not say more.
    pub version: String,
}

/// The first usable library, if any, and what was looked at on the way.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub found: Option<Library>,
    /// The places.
    pub tried: Vec<String>,
    /// Libraries that were there but cannot be used, and why.
    pub rejected: Vec<String>,
}

impl Search {
    /// Takes the first usable candidate, unless there is one already.
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

/// The settings that decide where to look.
#[derive(Debug, Default)]
pub(super) struct SearchPaths {
    pub ort_lib: Option<PathBuf>,
    pub ort_dylib_path: Option<PathBuf>,
    pub virtual_env: Option<PathBuf>,
    pub conda_prefix: Option<PathBuf>,
    pub library_path: Option<OsString>,
    /// Whether programs may be asked: `python3` for its packages, `ldconfig` for its cache.
    pub ask_programs: bool,
}

impl SearchPaths {
    /// The places that this process's environment names, plus `--ort-lib`.
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
            ask_programs: true,
        }
    }

    /// Looks for a library, in the documented order.
    ///
    /// # Errors
    ///
    /// [`EngineError::Library`] if a library that was named explicitly cannot be used: another
    /// one in its place would not be what was asked for.
    pub fn search(&self) -> Result<Search, EngineError> {
        let mut search = Search::default();
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

    /// Libraries of the `onnxruntime` wheel in the active Python environment.
    fn wheels(&self, tried: &mut Vec<String>) -> Vec<PathBuf> {
        let prefixes: Vec<&PathBuf> = [&self.virtual_env, &self.conda_prefix]
            .into_iter()
            .filter_map(Option::as_ref)
            .collect();
        let mut folders: Vec<PathBuf> = prefixes.iter().flat_map(|p| site_packages(p)).collect();
        if prefixes.is_empty() && self.ask_programs {
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

    /// Libraries where the dynamic linker would look.
    fn system(&self, tried: &mut Vec<String>) -> Vec<PathBuf> {
        tried.push(format!(
            "system libraries ({LIBRARY_PATH}, ldconfig, /usr/local/lib)"
        ));
        let folders = self.library_path.iter().flat_map(env::split_paths);
        let mut found: Vec<PathBuf> = folders.flat_map(|folder| libraries_in(&folder)).collect();
        if self.ask_programs {
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

/// Loads a library and asks its version. It stays loaded.
fn check(path: &Path) -> Result<Library, String> {
    // A bare or relative name would be looked up beside this program first.
    let path = fs::canonicalize(path).map_err(|e| e.to_string())?;
    ort::util::preload_dylib(&path).map_err(|e| innermost(&e))?;
    let Some(minor) = ort::util::probe(&path) else {
        return Err("it is a shared library, but not ONNX Runtime 1.x".into());
    };
    if minor < MINIMUM_MINOR {
        return Err(format!(
            "version 1.{minor} is too old, 1.{MINIMUM_MINOR} or newer is needed"
        ));
    }
    let named = version_in(&path).filter(|v| v.get(..2) == Some(&[1, minor]));
    let version = named.map_or_else(|| format!("1.{minor}"), |parts| join(&parts));
    Ok(Library { path, version })
}

/// The linker's own words, which its error keeps as a source.
fn innermost(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// ONNX Runtime libraries in one folder, the newest first.
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

/// The version in `libonnxruntime.so.1.32.0` or `libonnxruntime.1.32.0.dylib`.
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

/// The folders of installed packages under an environment's root.
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

/// The package folders of the `python3` on the path, the user's own first.
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

/// ONNX Runtime as the linker's cache knows it.
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

/// What a program prints, or nothing if it is not there or fails.
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
    fn a_text_file_as_library_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "not a library").unwrap();
        let places = SearchPaths {
            ort_lib: Some(file.path().into()),
            ..SearchPaths::default()
        };
        let error = places.search().unwrap_err().to_string();
        assert!(error.contains("--ort-lib"), "{error}");
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_library_that_is_not_there_is_an_error() {
        let places = SearchPaths {
            ort_dylib_path: Some("/no/such/libonnxruntime.so".into()),
            ..SearchPaths::default()
        };
        let error = places.search().unwrap_err().to_string();
        assert!(
            error.contains("ORT_DYLIB_PATH") && error.contains("No such file"),
            "{error}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn broken_candidates_are_passed_over_and_listed() {
        let env = tempfile::tempdir().unwrap();
        let capi = env
            .path()
            .join("lib/python3.12/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.24.1"] {
            fs::write(capi.join(name), "not a library").unwrap();
        }
        fs::write(capi.join("libonnxruntime_providers_shared.so"), "").unwrap();
        let places = SearchPaths {
            virtual_env: Some(env.path().into()),
            ..SearchPaths::default()
        };
        let search = places.search().unwrap();
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
