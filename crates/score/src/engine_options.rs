//! Engine, devices and threads: the options shared by scoring, evaluation, benchmarks and serving.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::{
    Devices, EngineChoice, EngineConfig, EngineError, PipelineOptions, Runtime, RuntimeOptions,
    SessionOptions, ThreadPlan, ThreadRequest,
};
use rgby_imaging::DecodeLimits;

/// How to run a model.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Samples per batch; 0 is taken as 1.
    pub batch: usize,
    pub devices: Devices,
    pub engine: EngineChoice,
    /// The ONNX Runtime library; `None` searches for it.
    pub ort_lib: Option<PathBuf>,
    /// TOML file with an [`EngineConfig`].
    pub engine_config: Option<PathBuf>,
    /// Threads that read and decode images; `None` for one per processor.
    pub decode_threads: Option<usize>,
    /// Sessions per device; `None` lets the engine decide.
    pub sessions: Option<usize>,
    /// Threads per session; `None` for enough to use all processors.
    pub intra_threads: Option<usize>,
}

impl Default for EngineOptions {
    /// Batches of 8 on the CPU, with the engine that is found.
    fn default() -> Self {
        Self {
            batch: 8,
            devices: Devices::default(),
            engine: EngineChoice::Auto,
            ort_lib: None,
            engine_config: None,
            decode_threads: None,
            sessions: None,
            intra_threads: None,
        }
    }
}

/// A started engine with its devices, configuration and threads.
#[derive(Debug, Clone)]
pub struct StartedEngine {
    /// One per device; at least one.
    pub runtimes: Vec<Runtime>,
    /// Engine and devices for people: `ONNX Runtime 1.32.0 (/path) on cuda:0,1`.
    pub name: String,
    /// The part of the name that results depend on: versions and the kind of device, but no paths.
    pub identity: String,
    pub config: Arc<EngineConfig>,
    pub threads: ThreadPlan,
}

impl StartedEngine {
    /// Describes the engine and its threads, one line each.
    #[must_use]
    pub fn notes(&self) -> [String; 2] {
        let notice = self.runtimes[0].notice();
        let reason = notice.map(|notice| format!("; {notice}"));
        let each = match self.runtimes.len() {
            1 => String::new(),
            devices => format!(" on each of {devices} devices"),
        };
        [
            format!("engine: {}{}", self.name, reason.unwrap_or_default()),
            format!("split: {}{each}", self.threads),
        ]
    }

    /// Returns the options of one session.
    #[must_use]
    pub fn session_options(&self) -> SessionOptions {
        SessionOptions {
            intra_threads: self.threads.intra_threads,
            config: self.config.clone(),
        }
    }
}

impl EngineOptions {
    /// Starts the engine on each device.
    ///
    /// # Errors
    ///
    /// The engine or a device is not available, or the options do not fit them.
    pub fn start(&self) -> Result<StartedEngine, EngineError> {
        let config = self.read_config()?;
        let mut runtimes = Vec::new();
        for device in self.devices.all() {
            runtimes.push(Runtime::start(&RuntimeOptions {
                engine: self.engine,
                device: *device,
                ort_lib: self.ort_lib.clone(),
            })?);
        }
        let runtime = runtimes[0];
        if let (true, Some(path)) = (runtime.is_tract(), &self.engine_config) {
            return Err(EngineError::Config {
                path: path.clone(),
                reason: format!(
                    "holds options of ONNX Runtime, but {} is in use\n\
                     hint: leave out --engine-config, or install ONNX Runtime with \
                     `pip install onnxruntime`",
                    runtime.engine()
                ),
            });
        }
        let request = ThreadRequest {
            decode_threads: self.decode_threads,
            sessions: self.sessions,
            intra_threads: self.intra_threads,
        };
        let threads = ThreadPlan::new(runtime, available_threads(), request)
            .map_err(EngineError::IntraThreads)?;
        Ok(StartedEngine {
            name: format!("{} on {}", runtime.engine(), self.devices),
            identity: format!(
                "rgby {}, {} on {}",
                env!("CARGO_PKG_VERSION"),
                runtime.version(),
                runtime.device().kind()
            ),
            threads,
            config: Arc::new(config),
            runtimes,
        })
    }

    /// Returns the pipeline options for an engine on the CPU.
    #[must_use]
    pub fn pipeline(&self) -> PipelineOptions {
        PipelineOptions {
            batch: self.batch,
            decode_threads: self.decode_threads.unwrap_or_else(available_threads),
            limits: DecodeLimits::default(),
            whole_batches: false,
        }
    }

    fn read_config(&self) -> Result<EngineConfig, EngineError> {
        let Some(path) = &self.engine_config else {
            return Ok(EngineConfig::default());
        };
        let config = EngineConfig::read(path)?;
        let checked = config.check_device(self.devices.all()[0]);
        checked.map_err(|reason| EngineError::Config {
            path: path.clone(),
            reason,
        })?;
        Ok(config)
    }
}

/// Returns the number of threads that this process may run at a time.
#[must_use]
pub fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
