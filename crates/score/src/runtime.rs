//! Selection and start of the engine: ONNX Runtime if its library is found, else tract.
//!
//! `ort` supports one engine per process. [`Runtime::start`] selects it; every later call must
//! select the same one. A device is chosen per [`Runtime`]; if it is not available, that is an
//! error.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};

use super::cuda::GpuLibraries;
use super::library_search::{OnnxRuntimeLibrary, SearchPaths};
use super::{Device, EngineChoice, EngineError, RuntimeOptions};

/// Number of parallel sessions, and threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Sessions; at least 1.
    pub engines: usize,
    /// Threads of each session; at least 1.
    pub intra_threads: usize,
}

/// A started engine and the device of its sessions.
#[derive(Debug, Clone, Copy)]
pub struct Runtime {
    backend: &'static Backend,
    device: Device,
}

/// The engine of this process.
#[derive(Debug)]
struct Backend {
    /// `None` for tract.
    library: Option<OnnxRuntimeLibrary>,
    /// A line for the user if tract runs because ONNX Runtime is not available.
    notice: Option<String>,
    environment: Environment,
}

static BACKEND: OnceLock<Backend> = OnceLock::new();

impl Runtime {
    /// Finds and starts the engine, or returns the running one.
    ///
    /// # Errors
    ///
    /// ONNX Runtime is required but not usable, the device is not available, or the options
    /// contradict the running engine.
    pub fn start(options: &RuntimeOptions) -> Result<Self, EngineError> {
        static STARTING: Mutex<()> = Mutex::new(());
        let guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = if let Some(running) = BACKEND.get() {
            running.agrees_with(options)?;
            running
        } else {
            let started = Backend::start(options)?;
            BACKEND.get_or_init(|| started)
        };
        drop(guard);
        let runtime = Self {
            backend,
            device: options.device,
        };
        runtime.check_device()?;
        Ok(runtime)
    }

    /// Returns engine and device: `ONNX Runtime 1.32.0 (/path) on cpu`, `tract (embedded) on cpu`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} on {}", self.backend.name(), self.device)
    }

    /// Returns a line for the user if tract runs because ONNX Runtime is not available.
    #[must_use]
    pub fn notice(&self) -> Option<&'static str> {
        self.backend.notice.as_deref()
    }

    /// Returns the device of the sessions.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the name of the engine, with version and path.
    #[must_use]
    pub fn engine(&self) -> String {
        self.backend.name()
    }

    /// Returns the name of the engine with its version, without path.
    #[must_use]
    pub fn version(&self) -> String {
        let library = self.backend.library.as_ref();
        library.map_or_else(
            || TRACT_NAME.to_owned(),
            |library| format!("ONNX Runtime {}", library.version),
        )
    }

    /// Returns the path of the ONNX Runtime library; `None` for the embedded engine.
    #[must_use]
    pub fn library(&self) -> Option<&'static Path> {
        let library = self.backend.library.as_ref();
        library.map(|library| library.path.as_path())
    }

    /// Returns the kinds of devices that the engine was built for, whether or not such a GPU
    /// exists.
    #[must_use]
    pub fn device_kinds(&self) -> Vec<&'static str> {
        let mut kinds = vec!["cpu"];
        if !self.is_tract() {
            let built_for = |available: ort::Result<bool>| available.unwrap_or(false);
            kinds.extend(built_for(ep::CUDA::is_available()).then_some("cuda"));
            kinds.extend(built_for(ep::TensorRT::is_available()).then_some("tensorrt"));
        }
        kinds
    }

    /// Whether this is the embedded engine.
    #[must_use]
    pub fn is_tract(&self) -> bool {
        self.backend.library.is_none()
    }

    /// Distributes `threads` processor threads over sessions.
    ///
    /// tract runs each session on one thread. ONNX Runtime divides the work of a session among
    /// threads that wait for each other, so it gets two sessions: one continues while decoders
    /// delay the other, and on a GPU one computes while the other copies.
    #[must_use]
    pub fn workers(&self, threads: usize) -> Workers {
        // Each session of tract holds its own copy of the weights.
        const MAX_SESSIONS: usize = 8;
        let threads = threads.max(1);
        if self.is_tract() {
            Workers {
                engines: threads.min(MAX_SESSIONS),
                intra_threads: 1,
            }
        } else {
            let engines = threads.min(2);
            Workers {
                engines,
                intra_threads: threads.div_ceil(engines),
            }
        }
    }

    /// Divides `count` sessions of a model into groups that share one copy of the weights.
    ///
    /// On the CPU, ONNX Runtime supports several runs of a session at a time, so all sessions share
    /// it. On a GPU, runs of one session wait for each other. tract runs a session under a lock.
    #[must_use]
    pub fn session_groups(&self, count: usize) -> Vec<usize> {
        if self.shares_sessions() {
            vec![count]
        } else {
            vec![1; count]
        }
    }

    pub(super) fn shares_sessions(&self) -> bool {
        !self.is_tract() && self.device == Device::Cpu
    }

    pub(super) fn environment(&self) -> &'static Environment {
        &self.backend.environment
    }

    /// Returns the error for a device that is not available.
    pub(super) fn device_error(&self, reason: impl fmt::Display) -> EngineError {
        let libraries = self
            .gpu_libraries()
            .map(|libraries| format!("\n{libraries}"));
        EngineError::Device {
            device: self.device.to_string(),
            engine: self.backend.name(),
            reason: format!("{reason}{}", libraries.unwrap_or_default()),
        }
    }

    /// Searches the libraries that a GPU needs in addition to ONNX Runtime.
    fn gpu_libraries(&self) -> Option<GpuLibraries> {
        let library = self.backend.library.as_ref()?;
        (self.device != Device::Cpu).then(|| GpuLibraries::look(self.device, &library.path))
    }

    fn check_device(&self) -> Result<(), EngineError> {
        let available = match self.device {
            Device::Cpu => return Ok(()),
            _ if self.is_tract() => {
                let reason = "the embedded engine supports only the CPU; leave out `--engine tract` and \
                              install ONNX Runtime with `pip install onnxruntime-gpu`";
                return Err(self.device_error(reason));
            }
            Device::Cuda(_) => ep::CUDA::is_available(),
            Device::TensorRt(_) => ep::TensorRT::is_available(),
        };
        if available.map_err(|e| self.device_error(e))? {
            let loaded = self
                .gpu_libraries()
                .map_or(Ok(()), |libraries| libraries.load_wheels());
            return loaded.map_err(|e| self.device_error(e));
        }
        Err(self.device_error(
            "the library was built without support for it; replace `onnxruntime` by \
             `pip install onnxruntime-gpu`",
        ))
    }
}

impl Backend {
    fn start(options: &RuntimeOptions) -> Result<Self, EngineError> {
        if options.engine == EngineChoice::Tract {
            return Self::start_tract(None);
        }
        let search = SearchPaths::from_env(options.ort_lib.as_deref()).search()?;
        if let Some(library) = search.found {
            return Self::start_onnx_runtime(library);
        }
        if options.engine == EngineChoice::Auto && options.device == Device::Cpu {
            let why = search.rejected.first().map_or_else(
                || "ONNX Runtime was not found".to_owned(),
                |why| format!("ONNX Runtime cannot be used ({why})"),
            );
            return Self::start_tract(Some(format!(
                "{why}, so the embedded tract engine runs (about 3x slower); \
                 install it with `pip install -U onnxruntime`, or name it with --ort-lib PATH"
            )));
        }
        let (reason, package) = match options.device {
            Device::Cpu => ("--engine onnxruntime".to_owned(), "onnxruntime"),
            device => (format!("--device {device}"), "onnxruntime-gpu"),
        };
        let tried = [search.tried, search.rejected].concat();
        Err(EngineError::NoRuntime {
            reason,
            package,
            tried,
        })
    }

    fn start_onnx_runtime(library: OnnxRuntimeLibrary) -> Result<Self, EngineError> {
        let engine = onnx_runtime_name(&library);
        let failed = |reason: String| EngineError::Start {
            engine: engine.clone(),
            reason,
        };
        let builder = ort::init_from(&library.path).map_err(|e| failed(e.to_string()))?;
        let environment = builder
            .with_telemetry(false)
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            library: Some(library),
            notice: None,
            environment,
        })
    }

    fn start_tract(notice: Option<String>) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Start {
            engine: TRACT_NAME.into(),
            reason,
        };
        if !ort::set_api(ort_tract::api()) {
            return Err(failed("another engine is running".into()));
        }
        let environment = ort::init()
            .with_telemetry(false)
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            library: None,
            notice,
            environment,
        })
    }

    fn name(&self) -> String {
        self.library
            .as_ref()
            .map_or_else(|| TRACT_NAME.to_owned(), onnx_runtime_name)
    }

    /// Checks that `options` select the running engine.
    fn agrees_with(&self, options: &RuntimeOptions) -> Result<(), EngineError> {
        let wanted = match (options.engine, &options.ort_lib, &self.library) {
            (EngineChoice::Tract, _, Some(_)) => TRACT_NAME.to_owned(),
            (EngineChoice::OnnxRuntime, _, None) => "ONNX Runtime".to_owned(),
            (EngineChoice::Auto | EngineChoice::OnnxRuntime, Some(path), library)
                if library.as_ref().is_none_or(|l| !same_file(&l.path, path)) =>
            {
                format!("ONNX Runtime ({})", path.display())
            }
            _ => return Ok(()),
        };
        Err(EngineError::AlreadyStarted {
            wanted,
            running: self.name(),
        })
    }
}

const TRACT_NAME: &str = "tract (embedded)";

fn onnx_runtime_name(library: &OnnxRuntimeLibrary) -> String {
    format!(
        "ONNX Runtime {} ({})",
        library.version,
        library.path.display()
    )
}

fn same_file(canonical: &Path, other: &Path) -> bool {
    other.canonicalize().is_ok_and(|path| path == canonical)
}
