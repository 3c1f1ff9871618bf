//! Choosing and starting the engine: ONNX Runtime where its library is found, else tract.
//!
//! `ort` talks to one engine per process. [`Runtime::start`] decides which; every later call must
//! agree with that. A device is chosen per [`Runtime`], and is either had or an error.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};

use super::cuda::Needs;
use super::library_search::{Library, SearchPaths};
use super::{Device, EngineChoice, EngineError, RuntimeOptions};

/// How many engines to run side by side, and with how many threads each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Engines, each with its own session; at least 1.
    pub engines: usize,
    /// Threads inside each engine; at least 1.
    pub intra_threads: usize,
}

/// A started engine and the device that sessions will run on.
#[derive(Debug, Clone, Copy)]
pub struct Runtime {
    backend: &'static Backend,
    device: Device,
}

/// The engine that this process talks to.
#[derive(Debug)]
struct Backend {
    /// `None` for tract.
    library: Option<Library>,
    /// The line for the user where tract stands in for ONNX Runtime.
    notice: Option<String>,
    environment: Environment,
}

static BACKEND: OnceLock<Backend> = OnceLock::new();

impl Runtime {
    /// Finds and starts the engine, or hands out the one that is running.
    ///
    /// # Errors
    ///
    /// No usable ONNX Runtime where one is needed, a named library that cannot be used, a device
    /// that cannot be had, or a choice that contradicts the engine that already runs.
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

    /// What runs and where: `ONNX Runtime 1.32.0 (/path) on cpu`, `tract (embedded) on cpu`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} on {}", self.backend.name(), self.device)
    }

    /// The one line to show the user if tract runs for want of ONNX Runtime.
    #[must_use]
    pub fn notice(&self) -> Option<&'static str> {
        self.backend.notice.as_deref()
    }

    /// The device that sessions will run on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The library that runs, with its version and path, or the embedded engine.
    #[must_use]
    pub fn engine(&self) -> String {
        self.backend.name()
    }

    /// The engine and its version, wherever it is installed.
    #[must_use]
    pub fn version(&self) -> String {
        let library = self.backend.library.as_ref();
        library.map_or_else(
            || TRACT_NAME.to_owned(),
            |library| format!("ONNX Runtime {}", library.version),
        )
    }

    /// Where ONNX Runtime's library lies; none for the embedded engine.
    #[must_use]
    pub fn library(&self) -> Option<&'static Path> {
        let library = self.backend.library.as_ref();
        library.map(|library| library.path.as_path())
    }

    /// What `--device` may name with this engine, without an index: what the library was built
    /// for, whatever GPUs there are.
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

    /// Whether the embedded engine runs.
    #[must_use]
    pub fn is_tract(&self) -> bool {
        self.backend.library.is_none()
    }

    /// How to spread `threads` processor threads. tract runs each session on one. ONNX Runtime
    /// shares a session's work among several, which wait for each other; so where decoders hold up
    /// one of two sessions, the other goes on. On a GPU one computes while the other copies.
    #[must_use]
    pub fn workers(&self, threads: usize) -> Workers {
        // Each session holds its own copy of the weights.
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

    pub(super) fn environment(&self) -> &'static Environment {
        &self.backend.environment
    }

    /// The error for a device that this engine cannot offer.
    pub(super) fn device_error(&self, reason: impl fmt::Display) -> EngineError {
        let needs = self.needs().map(|needs| format!("\n{needs}"));
        EngineError::Device {
            device: self.device.to_string(),
            engine: self.backend.name(),
            reason: format!("{reason}{}", needs.unwrap_or_default()),
        }
    }

    /// What a GPU needs beside ONNX Runtime.
    fn needs(&self) -> Option<Needs> {
        let library = self.backend.library.as_ref()?;
        (self.device != Device::Cpu).then(|| Needs::look(self.device, &library.path))
    }

    fn check_device(&self) -> Result<(), EngineError> {
        let available = match self.device {
            Device::Cpu => return Ok(()),
            _ if self.is_tract() => {
                let reason = "the embedded engine runs on the CPU only. Leave out `--engine tract` \
                              and install ONNX Runtime with `pip install onnxruntime-gpu`";
                return Err(self.device_error(reason));
            }
            Device::Cuda(_) => ep::CUDA::is_available(),
            Device::TensorRt(_) => ep::TensorRT::is_available(),
        };
        if available.map_err(|e| self.device_error(e))? {
            let loaded = self.needs().map_or(Ok(()), |needs| needs.load_wheels());
            return loaded.map_err(|e| self.device_error(e));
        }
        Err(self.device_error(
            "that library was built without support for it. Install one that has it with \
             `pip install onnxruntime-gpu` (in place of `onnxruntime`)",
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
                 `pip install -U onnxruntime` or --ort-lib PATH mends that"
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

    fn start_onnx_runtime(library: Library) -> Result<Self, EngineError> {
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
            return Err(failed("another engine was set up before".into()));
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

    /// Whether the running engine is what a later caller asks for.
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

fn onnx_runtime_name(library: &Library) -> String {
    format!(
        "ONNX Runtime {} ({})",
        library.version,
        library.path.display()
    )
}

fn same_file(canonical: &Path, other: &Path) -> bool {
    other.canonicalize().is_ok_and(|path| path == canonical)
}
