//! Options of ONNX Runtime: `--engine-config FILE.toml`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};

use super::{Device, EngineError};

/// Maximum size of the file in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Options of ONNX Runtime. The defaults are ours, not always those of ONNX Runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    pub session: SessionConfig,
    /// CUDA, which also runs the nodes that `TensorRT` does not support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensorrt: Option<TensorRtConfig>,
}

/// The table `[session]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Graph optimization while loading.
    pub optimization: Optimization,
    /// Plan the memory of each batch shape once.
    pub memory_pattern: bool,
    /// Keep CPU memory for the next batch.
    pub cpu_arena: bool,
    /// Idle threads spin: faster inference, slower image decoding.
    pub spinning: bool,
}

/// The table `[cuda]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaConfig {
    /// Search for the cuDNN algorithm of a convolution.
    pub conv_algorithm_search: ConvSearch,
    /// Multiply float32 as TensorFloat-32, with 10-bit fractions.
    pub tf32: bool,
    /// Run convolutions in NHWC layout.
    pub prefer_nhwc: bool,
    /// Memory limit for tensors in MiB; `None` for no limit.
    pub memory_limit: Option<usize>,
    /// Growth of the memory arena.
    pub arena_extend: ArenaExtend,
    /// Prepare images in page-locked memory.
    pub pinned_memory: bool,
}

/// The table `[tensorrt]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRtConfig {
    /// Compute in float16 if that is faster.
    pub fp16: bool,
    /// Folder that caches built engines.
    pub engine_cache: Option<PathBuf>,
    /// Folder that caches kernel timings.
    pub timing_cache: Option<PathBuf>,
    /// Workspace limit in MiB.
    pub workspace_limit: Option<usize>,
}

/// Level of graph optimization.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    None,
    /// Constant folding and removal of redundant nodes.
    Basic,
    /// Node fusion as well.
    Extended,
    /// Layout optimization as well.
    #[default]
    All,
}

/// Search for the cuDNN algorithm of a convolution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvSearch {
    /// The heuristic of cuDNN.
    #[default]
    Heuristic,
    /// Tries all algorithms for each new shape.
    Exhaustive,
    /// The default algorithm of cuDNN.
    Default,
}

/// Growth of the arena of GPU memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArenaExtend {
    #[default]
    NextPowerOfTwo,
    SameAsRequested,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            optimization: Optimization::All,
            memory_pattern: false,
            cpu_arena: true,
            // Spinning threads would slow down the image decoders.
            spinning: false,
        }
    }
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            conv_algorithm_search: ConvSearch::default(),
            tf32: false,
            prefer_nhwc: false,
            memory_limit: None,
            arena_extend: ArenaExtend::default(),
            pinned_memory: true,
        }
    }
}

impl Optimization {
    pub(super) fn level(self) -> GraphOptimizationLevel {
        match self {
            Self::None => GraphOptimizationLevel::Disable,
            Self::Basic => GraphOptimizationLevel::Level1,
            Self::Extended => GraphOptimizationLevel::Level2,
            Self::All => GraphOptimizationLevel::All,
        }
    }
}

impl EngineConfig {
    /// Reads and validates a TOML file.
    ///
    /// # Errors
    ///
    /// [`EngineError::Config`], naming the file, the line and the field.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        let error = |reason| EngineError::Config {
            path: path.to_owned(),
            reason,
        };
        let unreadable = |e: std::io::Error| error(format!("cannot be read: {e}"));
        if !path.metadata().map_err(unreadable)?.is_file() {
            return Err(error("is not a file; name a TOML file".into()));
        }
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        read.map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(error(
                "is larger than 64 KiB; name a TOML file of options".into(),
            ));
        }
        let config: Self = toml::from_str(&text).map_err(|e| error(e.to_string()))?;
        config.check_values().map_err(error)?;
        Ok(config)
    }

    fn check_values(&self) -> Result<(), String> {
        let cuda = self.cuda.as_ref().and_then(|cuda| cuda.memory_limit);
        let tensorrt = self.tensorrt.as_ref();
        let workspace = tensorrt.and_then(|tensorrt| tensorrt.workspace_limit);
        for (field, limit) in [
            ("cuda.memory_limit", cuda),
            ("tensorrt.workspace_limit", workspace),
        ] {
            if limit.is_some_and(|mib| mib == 0 || mib.checked_mul(1 << 20).is_none()) {
                return Err(format!(
                    "`{field}` must be at least 1 MiB; leave it out for no limit"
                ));
            }
        }
        let folders = tensorrt.map_or([None, None], |t| {
            [t.engine_cache.as_ref(), t.timing_cache.as_ref()]
        });
        for (field, folder) in ["engine_cache", "timing_cache"].into_iter().zip(folders) {
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                return Err(format!(
                    "`tensorrt.{field}`: there is no folder {}; create it first",
                    folder.display()
                ));
            }
        }
        Ok(())
    }

    /// Checks that all tables apply to `device`.
    ///
    /// # Errors
    ///
    /// A message that names the table.
    pub fn check_device(&self, device: Device) -> Result<(), String> {
        let (cuda, tensorrt) = match device {
            Device::Cpu => (false, false),
            Device::Cuda(_) => (true, false),
            Device::TensorRt(_) => (true, true),
        };
        for (table, given, used, wanted) in [
            ("cuda", self.cuda.is_some(), cuda, "cuda or tensorrt"),
            ("tensorrt", self.tensorrt.is_some(), tensorrt, "tensorrt"),
        ] {
            if given && !used {
                return Err(format!(
                    "the table [{table}] is for --device {wanted}, but the model runs on {device}; \
                     remove the table or change --device"
                ));
            }
        }
        Ok(())
    }

    /// Returns the execution providers of a device; each returns an error instead of falling back
    /// to the CPU.
    pub(super) fn providers(&self, device: Device) -> Vec<ExecutionProviderDispatch> {
        let mut providers = Vec::new();
        match device {
            Device::Cpu => {}
            Device::Cuda(index) => providers.push(self.cuda(index)),
            Device::TensorRt(index) => providers.extend([self.tensorrt(index), self.cuda(index)]),
        }
        if !self.session.cpu_arena {
            let cpu = ep::CPU::default().with_arena_allocator(false);
            providers.push(cpu.build().error_on_failure());
        }
        providers
    }

    fn cuda(&self, index: u32) -> ExecutionProviderDispatch {
        let config = self.cuda.clone().unwrap_or_default();
        let search = match config.conv_algorithm_search {
            ConvSearch::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
            ConvSearch::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
            ConvSearch::Default => ep::cuda::ConvAlgorithmSearch::Default,
        };
        let extend = match config.arena_extend {
            ArenaExtend::NextPowerOfTwo => ArenaExtendStrategy::NextPowerOfTwo,
            ArenaExtend::SameAsRequested => ArenaExtendStrategy::SameAsRequested,
        };
        let mut cuda = ep::CUDA::default()
            .with_device_id(index.cast_signed())
            .with_conv_algorithm_search(search)
            .with_tf32(config.tf32)
            .with_prefer_nhwc(config.prefer_nhwc)
            .with_arena_extend_strategy(extend);
        if let Some(mib) = config.memory_limit {
            cuda = cuda.with_memory_limit(mib << 20);
        }
        cuda.build().error_on_failure()
    }

    fn tensorrt(&self, index: u32) -> ExecutionProviderDispatch {
        let config = self.tensorrt.clone().unwrap_or_default();
        let mut tensorrt = ep::TensorRT::default()
            .with_device_id(index.cast_signed())
            .with_fp16(config.fp16);
        if let Some(folder) = config.engine_cache {
            tensorrt = tensorrt
                .with_engine_cache(true)
                .with_engine_cache_path(folder.display());
        }
        if let Some(folder) = config.timing_cache {
            tensorrt = tensorrt
                .with_timing_cache(true)
                .with_timing_cache_path(folder.display());
        }
        if let Some(mib) = config.workspace_limit {
            tensorrt = tensorrt.with_max_workspace_size(mib << 20);
        }
        tensorrt.build().error_on_failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EngineConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.toml");
        std::fs::write(&path, text).unwrap();
        EngineConfig::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn missing_keys_have_defaults() {
        assert_eq!(read("").unwrap(), EngineConfig::default());
        let config = read(
            "[session]\noptimization = \"basic\"\ncpu_arena = false\n[cuda]\ntf32 = true\n\
             memory_limit = 2048\n[tensorrt]\nfp16 = true\n",
        )
        .unwrap();
        assert_eq!(config.session.optimization, Optimization::Basic);
        assert!(!config.session.memory_pattern && !config.session.cpu_arena);
        let cuda = config.cuda.unwrap();
        assert_eq!(cuda.conv_algorithm_search, ConvSearch::Heuristic);
        assert_eq!((cuda.tf32, cuda.memory_limit), (true, Some(2048)));
        assert!(config.tensorrt.unwrap().fp16);
    }

    #[test]
    fn the_documented_example_contains_the_defaults() {
        let page = include_str!("../../../docs/scoring.md");
        let mut examples = page.split("```toml\n");
        let example = examples.find(|text| text.starts_with("[session]")).unwrap();
        let example = example.split("```").next().unwrap();
        let config = read(example).unwrap();
        assert_eq!(config.session, SessionConfig::default());
        assert_eq!(config.cuda, Some(CudaConfig::default()));
        assert_eq!(config.tensorrt, Some(TensorRtConfig::default()));
        // The commented keys are valid, too; their folders do not exist.
        let all = example.replace("# memory_limit", "memory_limit");
        let all = all.replace("# workspace_limit", "workspace_limit");
        assert_eq!(read(&all).unwrap().cuda.unwrap().memory_limit, Some(8192));
        let all = all.replace("# engine_cache", "engine_cache");
        let error = read(&all.replace("# timing_cache", "timing_cache")).unwrap_err();
        assert!(error.contains("no folder trt"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("[session]\nspinner = true\n", "unknown field `spinner`"),
            ("[cpu]\n", "unknown field `cpu`"),
            ("[session]\nspinning = 1\n", "spinning = 1"),
            ("[session]\noptimization = \"most\"\n", "`extended`"),
            ("[cuda]\nmemory_limit = 0\n", "`cuda.memory_limit`"),
            ("[cuda]\nmemory_limit = -1\n", "memory_limit = -1"),
            ("[cuda]\ncuda_graph = true\n", "unknown field `cuda_graph`"),
            (
                "[tensorrt]\nengine_cache = \"/nowhere\"\n",
                "`tensorrt.engine_cache`: there is no folder /nowhere",
            ),
            ("[session\n", "line 1"),
        ] {
            let error = read(text).unwrap_err();
            let named = error.contains("engine.toml") && error.contains(wanted);
            assert!(named, "no {wanted} in {error}");
        }
        assert!(read(&"#".repeat(70_000)).unwrap_err().contains("64 KiB"));
        assert!(EngineConfig::read(Path::new("none.toml")).is_err());
    }

    #[test]
    fn tables_of_other_devices_are_refused() {
        let cuda = read("[cuda]\n").unwrap();
        let tensorrt = read("[tensorrt]\n").unwrap();
        let session = read("[session]\n").unwrap();
        for (config, device, fits) in [
            (&cuda, Device::Cpu, false),
            (&cuda, Device::Cuda(0), true),
            (&cuda, Device::TensorRt(0), true),
            (&tensorrt, Device::Cpu, false),
            (&tensorrt, Device::Cuda(0), false),
            (&tensorrt, Device::TensorRt(0), true),
            (&session, Device::Cpu, true),
        ] {
            let checked = config.check_device(device);
            assert_eq!(checked.is_ok(), fits, "{config:?} on {device}");
        }
        let error = tensorrt.check_device(Device::Cuda(1)).unwrap_err();
        assert!(
            error.contains("[tensorrt]") && error.contains("cuda:1"),
            "{error}"
        );
    }
}
