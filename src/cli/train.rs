//! `rgby train`, and the options that it shares with `retrain`.

pub(super) mod screen;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;

use super::signals::Signals;
use super::tracking_args::TrackingArgs;
use super::{LabelledArgs, Outcome, Ui};
use crate::data::{Dataset, PixelCache};
use crate::export::FeatureDevice;
use crate::memory;
use crate::train::{
    CheckpointInterval, Config, FeatureCache, HeadChoice, RunEnd, RunOrigin, StartingPoint,
    TrainDevice, TrainJob, open_or_build_cache, train,
};
use screen::Screen;

/// Train a network from a config, starting from pretrained or random weights
///
/// Writes to RUN: config.toml (the resolved config), metrics.csv (one row per epoch), report.html
/// (the run so far), log.txt, plots, tensorboard (event files), checkpoints/best and
/// checkpoints/last. SIGTERM saves and exits with code 143; --resume continues the run.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby train --config configs/resnet50-rgby.toml --from resnet50.onnx \\\n    \
    --images train/ --labels train.csv --out runs/first"
)]
pub struct TrainArgs {
    /// Checkpoint or ONNX file to start from [default: random weights]
    ///
    /// Accepts a checkpoint of `rgby convert`, a file of `rgby export`, or a pretrained ONNX network,
    /// which is converted first.
    #[arg(long, value_name = "CKPT|FILE")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of both training commands.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// TOML config of the run
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Override one config value; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub data: LabelledArgs,
    /// Pixel cache to train from; created if missing
    ///
    /// The images are decoded and resized once into this file. An existing cache is used unchanged.
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
    /// Folder for cached features of a frozen backbone, or `off` [default: inside RUN]
    ///
    /// Several runs may share a folder. The default cache is deleted when it is no longer needed.
    /// `off` computes the features in each step.
    #[arg(long, value_name = "DIR|off")]
    pub feature_cache: Option<PathBuf>,
    /// Where the features of a frozen backbone are computed: auto, cpu, cuda[:i] or burn
    ///
    /// `cpu` and `cuda` use ONNX Runtime, `burn` the training device. `auto` uses ONNX Runtime on the
    /// hardware of --device; if that is not available, it prints the reason and uses Burn.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub feature_device: FeatureDevice,
    /// Run directory
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Training device: cpu, torch[:cpu|:cuda[:i]|:mps], cuda[:i] or wgpu[:i]
    ///
    /// `rgby devices` lists the available ones.
    #[arg(long, default_value = "cpu")]
    pub device: TrainDevice,
    /// Training samples for recalibrating BatchNorm before the first step; 0 disables it
    ///
    /// [default: 256 for a checkpoint whose BatchNorm was folded, else 0]
    #[arg(long, value_name = "N")]
    pub recalibrate: Option<usize>,
    /// Interval for saving checkpoints/last within an epoch: "100 steps" or "10 minutes"
    #[arg(long, value_name = "INTERVAL")]
    pub checkpoint_every: Option<CheckpointInterval>,
    /// Resume the interrupted run in --out
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub tracking: TrackingArgs,
}

impl TrainArgs {
    /// Trains a run.
    ///
    /// # Errors
    ///
    /// Config, data and checkpoint do not match, or training failed; saved checkpoints remain.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.run.start(self.from.as_deref(), HeadChoice::Auto, ui)
    }
}

impl RunArgs {
    /// Trains a new or resumed run; a new one starts from the checkpoint or file `from`, if any.
    pub(super) fn start(
        &self,
        from: Option<&Path>,
        head: HeadChoice,
        ui: &Ui,
    ) -> anyhow::Result<Outcome> {
        let config = Config::read(&self.config, &self.set)?;
        ensure!(
            !self.out.is_file(),
            "{} is a file\nhint: --out names the run directory",
            self.out.display()
        );
        let from = from.filter(|_| !self.resume);
        let from = from.map(|path| StartingPoint::open(path, &config.model, head));
        let from = from.transpose()?;
        if let Some(start) = &from {
            ui.note(&start.to_string());
        }
        memory::keep_freed_memory();
        let resolved = self.device.resolved().map_err(anyhow::Error::msg)?;
        let device = resolved.open().map_err(anyhow::Error::msg)?;
        let settings = &config.train;
        settings.configure(&device).map_err(anyhow::Error::msg)?;
        let dataset = self.dataset(&config, resolved, ui)?;
        let signals = Signals::listen()?;
        let images = self.data.images()?;
        let origin = RunOrigin::new(resolved, &images, &self.data.labels, from.as_ref());
        let tracker = self.tracking.tracker(&self.out, &origin, &dataset);
        let epochs = config.train.epochs;
        let cache = self.pixel_cache(&dataset, &config, ui)?;
        let (dataset, out) = (Arc::new(dataset), self.out.clone());
        let job = TrainJob {
            origin,
            cache: cache.map(Arc::new),
            features: self.feature_cache(resolved),
            from,
            recalibrate: self.recalibrate,
            resume: self.resume,
            checkpoint_every: self.checkpoint_every,
            ..TrainJob::new(config, dataset, out, device, signals.stop())
        };
        let observer = Screen::new(ui, &self.out, epochs, tracker);
        let end = train(job, &observer);
        observer.end(&end);
        Ok(match end? {
            RunEnd::Finished => {
                let out = self.out.display();
                ui.note(&format!(
                    "{out}/checkpoints/best is the epoch with the lowest loss\nhint: `rgby export \
                     --from {out} --out model.onnx` writes it as a file for scoring"
                ));
                Outcome::Done
            }
            RunEnd::Stopped => signals.outcome(),
        })
    }

    /// Opens the data set and prints a summary of the run.
    fn dataset(&self, config: &Config, device: TrainDevice, ui: &Ui) -> anyhow::Result<Dataset> {
        let classes = config.model.classes.len();
        let stains = config.preprocess().stains();
        let dataset = Dataset::open(&self.data.images()?, &self.data.labels, &stains, classes)?;
        ui.note(&format!(
            "{} at {}², {} samples, {classes} classes, {} epochs, on {} → {}",
            config.model.arch.name(),
            config.model.input_size,
            dataset.len(),
            config.train.epochs,
            device,
            self.out.display()
        ));
        Ok(dataset)
    }

    fn pixel_cache(
        &self,
        dataset: &Dataset,
        config: &Config,
        ui: &Ui,
    ) -> anyhow::Result<Option<PixelCache>> {
        let open = |path: &PathBuf| open_or_build_cache(path, dataset, config, &ui.observer());
        Ok(self.cache.as_ref().map(open).transpose()?)
    }

    /// Returns where features of a frozen backbone are cached; none with `--feature-cache off`.
    fn feature_cache(&self, device: TrainDevice) -> Option<FeatureCache> {
        if self.feature_cache.as_deref() == Some(Path::new("off")) {
            return None;
        }
        Some(FeatureCache {
            folder: self.feature_cache.clone(),
            backend: self.feature_device.backend(device),
        })
    }
}
