//! `rgby train`, and what `retrain` shares with it.

mod screen;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, ensure};
use clap::Args;

use super::cache::write_cache;
use super::convert::{Unpacked, unpack};
use super::signals::Signals;
use super::tracking_args::{Tracker, TrackingArgs};
use super::{LabelledArgs, Outcome, Ui};
use crate::data::{Dataset, PixelCache};
use crate::export::OrtExtractor;
use crate::memory;
use crate::model::{Classifier, ModelConfig, WeightTransfer};
use crate::score::{Runtime, RuntimeOptions};
use crate::train::{
    Checkpoint, CheckpointInterval, Config, Extractor, FeatureCache, RECALIBRATE_DEFAULT, RunEnd,
    RunOrigin, TrainDevice, TrainJob, resolve, train,
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
    /// Run directory
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Training device: cpu, cuda[:i] or wgpu[:i]
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
    /// Trains.
    ///
    /// # Errors
    ///
    /// Config, data or checkpoint do not fit; what was reached is kept.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.run.start(self.from.as_deref(), HeadChoice::Auto, ui)
    }
}

/// What to do with the head of the starting checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HeadChoice {
    /// Keep the head if its layers and classes match the config, else replace it.
    Auto,
    /// Keep the head; fail if it does not match the config.
    Keep,
    /// Keep the layers before the first that differs from the config; the output layer is new.
    Prefix,
    /// Replace the head with a new one.
    Replace,
}

impl RunArgs {
    /// Trains, from the checkpoint or file `from` if there is one, whose head becomes what `head`
    /// says.
    pub(super) fn start(
        &self,
        from: Option<&Path>,
        head: HeadChoice,
        ui: &Ui,
    ) -> anyhow::Result<Outcome> {
        let config = Config::read(&self.config, &self.set)?;
        ensure!(
            !self.out.is_file(),
            "{} is a file; --out names the folder of the run",
            self.out.display()
        );
        let from = match from {
            Some(path) if !self.resume => Some(starting_point(path, &config.model, head, ui)?),
            _ => None,
        };
        memory::keep_freed_memory();
        let device = self.device.open().map_err(anyhow::Error::msg)?;
        let dataset = self.dataset(&config, ui)?;
        let signals = Signals::listen()?;
        let epochs = config.train.epochs;
        let origin = self.origin(from.as_ref());
        let tracker = Tracker::new(&self.tracking, &self.out, &origin, &dataset);
        let job = TrainJob {
            origin,
            cache: self.open_cache(&dataset, &config, ui)?.map(Arc::new),
            dataset: Arc::new(dataset),
            config,
            features: self.feature_cache(),
            from: from.as_ref().map(|start| (start.dir.clone(), start.keep)),
            recalibrate: self.recalibrate.unwrap_or(match &from {
                Some(start) if start.unfolded => RECALIBRATE_DEFAULT,
                _ => 0,
            }),
            out: self.out.clone(),
            resume: self.resume,
            checkpoint_every: self.checkpoint_every,
            device,
            stop: signals.stop(),
        };
        let watch = Screen::new(ui, &self.out, epochs, tracker);
        let ended = train(job, &watch);
        watch.end(&ended);
        Ok(match ended? {
            RunEnd::Finished => {
                let out = self.out.display();
                ui.note(&format!(
                    "{out}/checkpoints/best is the epoch of the lowest loss; `rgby export --from \
                     {out} --out model.onnx` makes a file of it to score with"
                ));
                Outcome::Done
            }
            RunEnd::Stopped => signals.outcome(),
        })
    }

    /// The samples, of which it is noted what will be done with them.
    fn dataset(&self, config: &Config, ui: &Ui) -> anyhow::Result<Dataset> {
        let classes = config.model.classes.len();
        let stains = config.preprocess().stains();
        let dataset = Dataset::open(&self.data.images()?, &self.data.labels, &stains, classes)?;
        ui.note(&format!(
            "{} at {}², {} samples, {classes} classes, {} epochs, on {} → {}",
            config.model.arch.name(),
            config.model.input_size,
            dataset.len(),
            config.train.epochs,
            self.device,
            self.out.display()
        ));
        Ok(dataset)
    }

    /// Where the run comes from, for its report.
    fn origin(&self, from: Option<&Start>) -> RunOrigin {
        let path = |path: &Path| path.display().to_string();
        let pattern = self.data.layout.pattern.as_ref();
        RunOrigin {
            rgby_version: env!("CARGO_PKG_VERSION").into(),
            device: self.device.to_string(),
            images: path(&self.data.images),
            labels: path(&self.data.labels),
            pattern: pattern.map(|pattern| pattern.as_str().to_owned()),
            channels: self.data.layout.channels.iter().cloned().collect(),
            from: from.map(|start| path(&start.shown)),
            head: from.map(|start| kept(start.keep).into()),
        }
    }

    /// The pixel cache, made if it is not there.
    fn open_cache(
        &self,
        dataset: &Dataset,
        config: &Config,
        ui: &Ui,
    ) -> anyhow::Result<Option<PixelCache>> {
        let Some(path) = &self.cache else {
            return Ok(None);
        };
        if !path.exists() {
            write_cache(path, dataset, &config.cache_form(), ui)?;
        }
        Ok(Some(PixelCache::open(path)?))
    }

    /// Where the features of a frozen backbone are kept, unless they are not.
    fn feature_cache(&self) -> Option<FeatureCache<'static>> {
        if self.feature_cache.as_deref() == Some(Path::new("off")) {
            return None;
        }
        Some(FeatureCache {
            folder: self.feature_cache.clone(),
            extractor: if self.device == TrainDevice::Cpu {
                &on_onnx_runtime
            } else {
                &|_, _| Ok(None)
            },
        })
    }
}

/// The part before the head on ONNX Runtime, if it is there; tract is no faster than Burn.
fn on_onnx_runtime(
    classifier: &Classifier,
    config: &Config,
) -> Result<Option<Box<dyn Extractor>>, String> {
    let runtime = Runtime::start(&RuntimeOptions::default()).map_err(|error| error.to_string())?;
    if runtime.is_tract() {
        return Ok(None);
    }
    let extractor = OrtExtractor::new(classifier, &config.model, runtime);
    Ok(Some(Box::new(
        extractor.map_err(|error| error.to_string())?,
    )))
}

/// The checkpoint that a run starts from.
struct Start {
    dir: PathBuf,
    /// What the user knows it by.
    shown: PathBuf,
    keep: WeightTransfer,
    /// Its BatchNorm statistics were made up, because a converted file had them folded.
    unfolded: bool,
    /// A checkpoint that was made of an ONNX file; it goes with this.
    _made: Option<Unpacked>,
}

fn starting_point(
    path: &Path,
    model: &ModelConfig,
    head: HeadChoice,
    ui: &Ui,
) -> anyhow::Result<Start> {
    let unpacked = path.is_file().then(|| unpack(path, &model.channels, ui));
    let made = unpacked.transpose()?;
    let dir = match &made {
        Some(made) => made.folder.path().join("checkpoint"),
        None => resolve(path)?,
    };
    let checkpoint = Checkpoint::open(&dir)?;
    let theirs = checkpoint.model;
    // An ONNX file goes by its own name, not by that of the folder it was unpacked to.
    let shown = if made.is_some() { path } else { &dir };
    ensure!(
        theirs.arch == model.arch,
        "{} holds {}, the config asks for {} (model.arch)",
        shown.display(),
        theirs.arch.name(),
        model.arch.name()
    );
    ensure!(
        theirs.channels == model.channels,
        "{} takes the channels {:?}, the config gives {:?} (model.channels)",
        shown.display(),
        theirs.channels,
        model.channels
    );
    let headless = made.as_ref().is_some_and(|made| made.pretrained);
    let keep = match head {
        HeadChoice::Keep | HeadChoice::Prefix if headless => bail!(
            "{} is a pretrained network, whose head is for other classes; leave out --head",
            shown.display()
        ),
        _ if headless => WeightTransfer::Backbone,
        HeadChoice::Prefix => WeightTransfer::Prefix,
        HeadChoice::Keep | HeadChoice::Auto if theirs.same_head(model) => WeightTransfer::All,
        HeadChoice::Auto | HeadChoice::Replace => WeightTransfer::Backbone,
        HeadChoice::Keep => bail!(
            "{}: its head has other layers or classes than the config; make model.hidden, \
             projection, pooling, input_norm and classes agree, or use --head prefix or replace",
            shown.display()
        ),
    };
    ui.note(&format!(
        "starting from {}, its head {}",
        shown.display(),
        kept(keep)
    ));
    Ok(Start {
        shown: shown.to_owned(),
        dir,
        keep,
        unfolded: checkpoint.unfolded > 0,
        _made: made,
    })
}

/// What becomes of a head, in words.
fn kept(keep: WeightTransfer) -> &'static str {
    match keep {
        WeightTransfer::All => "kept",
        WeightTransfer::Prefix => "kept as far as its layers are the config's",
        WeightTransfer::Backbone => "replaced by a new one",
    }
}
