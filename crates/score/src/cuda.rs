//! Finds the libraries that ONNX Runtime needs to run on an NVIDIA GPU.
//!
//! The dynamic loader does not search the Python wheels of NVIDIA (`nvidia-cudnn-cu12` and others),
//! so libraries found there are loaded before ONNX Runtime needs them.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::Device;

/// CUDA provider of ONNX Runtime, in the folder of its library.
const PROVIDER: &str = "libonnxruntime_providers_cuda.so";
/// `TensorRT` provider of ONNX Runtime.
const TENSORRT_PROVIDER: &str = "libonnxruntime_providers_tensorrt.so";
/// Name prefixes of the libraries that the provider is linked with, in the order of their
/// dependencies.
const LIBRARIES: [&str; 7] = [
    "libcuda.so",
    "libcudart.so",
    "libcublasLt.so",
    "libcublas.so",
    "libcufft.so",
    "libcurand.so",
    "libcudnn.so",
];
const TENSORRT: &str = "libnvinfer.so";

/// Folders to search, in order.
#[derive(Debug, Default)]
struct CudaPaths {
    /// Folder of the ONNX Runtime library.
    beside: PathBuf,
    /// `nvidia/*/lib` and `tensorrt_libs` of the Python environment that contains the library.
    wheels: Vec<PathBuf>,
    /// Folders that the dynamic loader searches.
    system: Vec<PathBuf>,
}

impl CudaPaths {
    fn of(library: &Path) -> Self {
        let beside = library.parent().map(Path::to_path_buf).unwrap_or_default();
        // onnxruntime/capi/libonnxruntime.so in site-packages.
        let packages = beside.parent().and_then(Path::parent);
        let mut wheels = Vec::new();
        if let Some(packages) = packages {
            let nvidia = fs::read_dir(packages.join("nvidia")).into_iter().flatten();
            wheels.extend(nvidia.flatten().map(|part| part.path().join("lib")));
            wheels.push(packages.join("tensorrt_libs"));
        }
        wheels.retain(|folder| folder.is_dir());
        wheels.sort();
        let variable = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let mut system: Vec<PathBuf> = env::split_paths(&variable).collect();
        for name in ["CUDA_PATH", "CUDA_HOME"] {
            system.extend(env::var_os(name).map(|root| Path::new(&root).join("lib64")));
        }
        let arch = env::consts::ARCH;
        system.extend(
            [
                "/usr/local/cuda/lib64".to_owned(),
                format!("/usr/lib/{arch}-linux-gnu"),
                "/usr/lib64".to_owned(),
            ]
            .map(PathBuf::from),
        );
        Self {
            beside,
            wheels,
            system,
        }
    }
}

/// The libraries that a device needs, each with its path if it was found.
#[derive(Debug)]
pub(super) struct GpuLibraries {
    paths: CudaPaths,
    parts: Vec<(&'static str, Option<PathBuf>)>,
}

impl GpuLibraries {
    /// Searches the libraries that `device` needs in addition to the ONNX Runtime `library`.
    pub fn look(device: Device, library: &Path) -> Self {
        Self::look_in(CudaPaths::of(library), device)
    }

    fn look_in(paths: CudaPaths, device: Device) -> Self {
        let tensorrt = matches!(device, Device::TensorRt(_));
        let beside = |name: &'static str| {
            let path = paths.beside.join(name);
            (name, path.is_file().then_some(path))
        };
        let mut parts = vec![beside(PROVIDER)];
        parts.extend(tensorrt.then(|| beside(TENSORRT_PROVIDER)));
        for name in LIBRARIES.into_iter().chain(tensorrt.then_some(TENSORRT)) {
            let mut folders = paths.wheels.iter().chain(&paths.system);
            parts.push((name, folders.find_map(|folder| newest(folder, name))));
        }
        Self { paths, parts }
    }

    /// Loads the libraries that are in wheels.
    ///
    /// # Errors
    ///
    /// The path of a library and the error of the loader.
    pub fn load_wheels(&self) -> Result<(), String> {
        let in_wheels = |path: &&PathBuf| {
            let folder = path.parent();
            folder.is_some_and(|folder| self.paths.wheels.iter().any(|wheel| wheel == folder))
        };
        let found = self.parts.iter().filter_map(|(_, path)| path.as_ref());
        for path in found.filter(in_wheels) {
            ort::util::preload_dylib(path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }
}

/// Lists the search results, one line per library.
impl fmt::Display for GpuLibraries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "searched for:")?;
        for (name, path) in &self.parts {
            match path {
                Some(path) => write!(f, "\n  {name}: {}", path.display())?,
                None if name.starts_with("libonnxruntime") => {
                    write!(f, "\n  {name}: not in {}", self.paths.beside.display())?;
                }
                None => write!(f, "\n  {name}: not found")?,
            }
        }
        let folders = self.paths.wheels.iter().chain(&self.paths.system);
        let folders: Vec<_> = folders.map(|folder| folder.display().to_string()).collect();
        write!(
            f,
            "\n  in {}\nCUDA and cuDNN are part of NVIDIA's packages and of `pip install \
             onnxruntime-gpu[cuda,cudnn]`; libcuda is part of the driver",
            folders.join(", ")
        )
    }
}

/// Returns the last file by name that is `name` or `name.*` in a folder.
fn newest(folder: &Path, name: &str) -> Option<PathBuf> {
    let fits = |file: &OsStr| {
        let rest = file.to_str().and_then(|file| file.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let entries = fs::read_dir(folder).ok()?.flatten();
    let files = entries.filter(|entry| fits(&entry.file_name()));
    files.map(|entry| entry.path()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a Python environment with ONNX Runtime, its CUDA provider and the cuDNN wheel.
    fn environment() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("onnxruntime/capi/libonnxruntime.so.1.32.0");
        for file in [
            "onnxruntime/capi/libonnxruntime.so.1.32.0",
            "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_graph.so.9",
            "system/libcudart.so.12",
            "system/libcudart.so.13",
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "no library").unwrap();
        }
        (dir, library)
    }

    #[test]
    fn finds_libraries_in_wheels_and_system_folders() {
        let (dir, library) = environment();
        let mut paths = CudaPaths::of(&library);
        assert_eq!(paths.wheels, [dir.path().join("nvidia/cudnn/lib")]);
        paths.system = vec![dir.path().join("system")];
        let libraries = GpuLibraries::look_in(paths, Device::TensorRt(0));
        let found = |name: &str| {
            let part = libraries
                .parts
                .iter()
                .find(|(part, _)| *part == name)
                .unwrap();
            let path = part.1.as_ref();
            path.map(|path| path.strip_prefix(dir.path()).unwrap().to_owned())
        };
        let cudnn = found("libcudnn.so").unwrap();
        assert_eq!(cudnn, Path::new("nvidia/cudnn/lib/libcudnn.so.9"));
        let runtime = found("libcudart.so").unwrap();
        assert_eq!(runtime, Path::new("system/libcudart.so.13"));
        assert!(found(PROVIDER).is_some());
        for missing in [TENSORRT_PROVIDER, TENSORRT, "libcublas.so"] {
            assert!(found(missing).is_none(), "{missing}");
            assert!(libraries.to_string().contains(&format!("{missing}: not ")));
        }
        // A text file with the name of a library cannot be loaded.
        let error = libraries.load_wheels().unwrap_err();
        assert!(error.contains("libcudnn.so.9"), "{error}");
    }
}
