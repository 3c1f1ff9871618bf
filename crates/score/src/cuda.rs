//! What ONNX Runtime needs beside itself to run on an NVIDIA GPU, and where that was looked for.
//!
//! NVIDIA's own Python wheels (`nvidia-cudnn-cu12` and its like) lie where the dynamic loader does
//! not look, so what is found there is loaded before ONNX Runtime asks for it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::Device;

/// ONNX Runtime's part for CUDA, which lies beside its library.
const PROVIDER: &str = "libonnxruntime_providers_cuda.so";
/// The part for `TensorRT`.
const TENSORRT_PROVIDER: &str = "libonnxruntime_providers_tensorrt.so";
/// The beginnings of what the provider is linked with, what depends on nothing first.
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

/// Places in their order.
#[derive(Debug, Default)]
struct CudaPaths {
    /// The folder of ONNX Runtime's library.
    beside: PathBuf,
    /// `nvidia/*/lib` and `tensorrt_libs` of the Python environment that the library is part of.
    wheels: Vec<PathBuf>,
    /// Where the dynamic loader looks.
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

/// What a device needs, and where each part of it lies, if anywhere.
#[derive(Debug)]
pub(super) struct Needs {
    places: CudaPaths,
    parts: Vec<(&'static str, Option<PathBuf>)>,
}

impl Needs {
    /// Looks for what `device` needs beside ONNX Runtime's `library`.
    pub fn look(device: Device, library: &Path) -> Self {
        Self::look_in(CudaPaths::of(library), device)
    }

    fn look_in(places: CudaPaths, device: Device) -> Self {
        let tensorrt = matches!(device, Device::TensorRt(_));
        let beside = |name: &'static str| {
            let path = places.beside.join(name);
            (name, path.is_file().then_some(path))
        };
        let mut parts = vec![beside(PROVIDER)];
        parts.extend(tensorrt.then(|| beside(TENSORRT_PROVIDER)));
        for name in LIBRARIES.into_iter().chain(tensorrt.then_some(TENSORRT)) {
            let mut folders = places.wheels.iter().chain(&places.system);
            parts.push((name, folders.find_map(|folder| newest(folder, name))));
        }
        Self { places, parts }
    }

    /// Loads what lies in wheels, where ONNX Runtime would not find it.
    ///
    /// # Errors
    ///
    /// A library's path and what the loader said of it.
    pub fn load_wheels(&self) -> Result<(), String> {
        let in_wheels = |path: &&PathBuf| {
            let folder = path.parent();
            folder.is_some_and(|folder| self.places.wheels.iter().any(|wheel| wheel == folder))
        };
        let found = self.parts.iter().filter_map(|(_, path)| path.as_ref());
        for path in found.filter(in_wheels) {
            ort::util::preload_dylib(path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }
}

/// What was looked for, a line for each part.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "looked for:")?;
        for (name, path) in &self.parts {
            match path {
                Some(path) => write!(f, "\n  {name}: {}", path.display())?,
                None if name.starts_with("libonnxruntime") => {
                    write!(f, "\n  {name}: not in {}", self.places.beside.display())?;
                }
                None => write!(f, "\n  {name}: not found")?,
            }
        }
        let folders = self.places.wheels.iter().chain(&self.places.system);
        let folders: Vec<_> = folders.map(|folder| folder.display().to_string()).collect();
        write!(
            f,
            "\n  in {}\nCUDA and cuDNN come with NVIDIA's packages, or with `pip install \
             onnxruntime-gpu[cuda,cudnn]`; libcuda with the driver",
            folders.join(", ")
        )
    }
}

/// The file `name` or, by name the last, `name.*` in a folder.
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

    /// A Python environment with ONNX Runtime, its part for CUDA and cuDNN's wheel.
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
    fn each_part_is_looked_for_where_it_may_lie() {
        let (dir, library) = environment();
        let mut places = CudaPaths::of(&library);
        assert_eq!(places.wheels, [dir.path().join("nvidia/cudnn/lib")]);
        places.system = vec![dir.path().join("system")];
        let needs = Needs::look_in(places, Device::TensorRt(0));
        let found = |name: &str| {
            let part = needs.parts.iter().find(|(part, _)| *part == name).unwrap();
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
            assert!(needs.to_string().contains(&format!("{missing}: not ")));
        }
        // What only has a library's name is no library.
        let error = needs.load_wheels().unwrap_err();
        assert!(error.contains("libcudnn.so.9"), "{error}");
    }
}
