//! Engine, device and thread options of `score`, `eval`, `bench` and `serve`.

use std::path::PathBuf;

use clap::Args;

use crate::score::{Devices, EngineChoice, EngineOptions};

/// Batch, device and engine options.
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

/// Engine and thread options.
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
    /// The sessions of ONNX Runtime on the CPU share the weights; each session of tract or on a GPU
    /// holds its own copy. Defaults: ONNX Runtime 2, but 1 in `rgby serve`; tract one per processor,
    /// at most 8.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sessions: Option<u16>,
    /// Threads per session [default: enough to use all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub intra_threads: Option<u16>,
}

impl EngineArgs {
    /// Returns the options for the library.
    #[must_use]
    pub fn options(&self) -> EngineOptions {
        let runner = &self.runner;
        EngineOptions {
            batch: self.batch.into(),
            devices: self.device.clone(),
            engine: runner.engine,
            ort_lib: runner.ort_lib.clone(),
            engine_config: runner.engine_config.clone(),
            decode_threads: runner.decode_threads.map(usize::from),
            sessions: runner.sessions.map(usize::from),
            intra_threads: runner.intra_threads.map(usize::from),
        }
    }
}
