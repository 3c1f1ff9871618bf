//! What runs a model, where, and with how many threads: flags that `score`, `eval` and
//! `bench` share.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::Args;

use crate::imaging::DecodeLimits;
use crate::score::{
    Devices, EngineChoice, EngineConfig, EngineError, PipelineOptions, Runtime, RuntimeOptions,
    ThreadPlan, ThreadRequest,
};

/// How to run a model.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Batch size
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Device for the model: cpu, cuda[:i] or tensorrt[:i]
    ///
    /// `cuda:0,1` uses several devices of one kind in parallel.
    #[arg(long, value_name = "DEVICE", default_value_t = Devices::default())]
    pub device: Devices,
    #[command(flatten)]
    pub runner: RunnerArgs,
}

impl Default for EngineArgs {
    fn default() -> Self {
        Self {
            batch: 8,
            device: Devices::default(),
            runner: RunnerArgs::default(),
        }
    }
}

/// What runs a model, and with how many threads.
#[derive(Debug, Clone, Default, Args)]
pub struct RunnerArgs {
    /// Inference engine: onnxruntime, tract or auto
    ///
    /// `auto` uses ONNX Runtime if its library is found, else the embedded tract.
    #[arg(long, value_name = "ENGINE", default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Path of the ONNX Runtime library [default: search for it]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// TOML file with ONNX Runtime options
    ///
    /// Its tables are `session`, `cuda` and `tensorrt`; docs/scoring.md lists the keys.
    #[arg(long, value_name = "FILE.toml")]
    pub engine_config: Option<PathBuf>,
    /// Threads that read and decode images [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub decode_threads: Option<u16>,
    /// Parallel sessions per device [default: depends on the engine]
    ///
    /// Each session holds its own copy of the model. Defaults: ONNX Runtime 2, but 1 in `rgby serve`;
    /// tract one per processor, at most 8.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sessions: Option<u16>,
    /// Threads per session [default: enough to use all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub intra_threads: Option<u16>,
}

/// The engine that runs, and how.
#[derive(Debug, Clone)]
pub struct Started {
    /// One for each device.
    pub runtimes: Vec<Runtime>,
    /// What runs and where: `ONNX Runtime 1.32.0 (/path) on cuda:0,1`.
    pub name: String,
    /// What of that results depend on, wherever it is installed.
    pub identity: String,
    /// ONNX Runtime's own options.
    pub config: Arc<EngineConfig>,
    /// How the processor's threads are shared out.
    pub split: ThreadPlan,
}

impl Started {
    /// What runs, and how, for people.
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
            format!("split: {}{each}", self.split),
        ]
    }
}

impl EngineArgs {
    /// Starts the engine on each device.
    ///
    /// # Errors
    ///
    /// The engine or a device cannot be had, or the options do not fit them.
    pub fn start(&self) -> anyhow::Result<Started> {
        let config = self.config()?;
        let runner = &self.runner;
        let mut runtimes = Vec::new();
        for device in self.device.all() {
            runtimes.push(Runtime::start(&RuntimeOptions {
                engine: runner.engine,
                device: *device,
                ort_lib: runner.ort_lib.clone(),
            })?);
        }
        let runtime = runtimes[0];
        if let (true, Some(path)) = (runtime.is_tract(), &runner.engine_config) {
            return Err(EngineError::Config {
                path: path.clone(),
                reason: format!(
                    "these are options of ONNX Runtime, and {} runs; leave out --engine-config, \
                     or install ONNX Runtime with `pip install onnxruntime`",
                    runtime.engine()
                ),
            }
            .into());
        }
        let wish = ThreadRequest {
            decode_threads: runner.decode_threads.map(usize::from),
            sessions: runner.sessions.map(usize::from),
            intra_threads: runner.intra_threads.map(usize::from),
        };
        let split = ThreadPlan::new(runtime, threads(), wish);
        Ok(Started {
            name: format!("{} on {}", runtime.engine(), self.device),
            identity: format!(
                "rgby {}, {} on {}",
                env!("CARGO_PKG_VERSION"),
                runtime.version(),
                runtime.device().kind()
            ),
            split: split.map_err(|e| anyhow::anyhow!("--intra-threads: {e}"))?,
            config: Arc::new(config),
            runtimes,
        })
    }

    /// How samples go to an engine on the CPU whose threads nothing else is said of.
    #[must_use]
    pub fn pipeline(&self) -> PipelineOptions {
        let decode_threads = self.runner.decode_threads;
        PipelineOptions {
            batch: self.batch.into(),
            decode_threads: decode_threads.map_or_else(threads, usize::from),
            limits: DecodeLimits::default(),
            whole_batches: false,
        }
    }

    fn config(&self) -> anyhow::Result<EngineConfig> {
        let Some(path) = &self.runner.engine_config else {
            return Ok(EngineConfig::default());
        };
        let config = EngineConfig::read(path)?;
        let checked = config.check_device(self.device.all()[0]);
        checked.map_err(|reason| EngineError::Config {
            path: path.clone(),
            reason,
        })?;
        Ok(config)
    }
}

/// Threads that this process may run at a time.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
