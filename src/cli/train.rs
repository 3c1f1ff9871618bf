//! `rgby train`, and what `retrain` shares with it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;

use super::cache::write_cache;
use super::convert::{Unpacked, unpack};
use super::signals::Signals;
use super::{LayoutArgs, Outcome, Ui};
use crate::data::{Dataset, PixelCache};
use crate::export::OrtExtractor;
use crate::memory;
use crate::model::{Classifier, Keep, ModelConfig};
use crate::report::{EpochRow, TimingRow};
use crate::score::{Runtime, RuntimeOptions};
use crate::train::{
    Checkpoint, Config, Ended, Every, Extractor, FeatureCache, Job, RECALIBRATE_DEFAULT,
    StepReport, TrainDevice, Watch, resolve, train,
};

/// Train a network from a config: from pretrained weights, or from random ones
///
/// Writes RUN/config.toml (everything resolved), metrics.csv (a row an epoch), log.txt, plots,
/// tensorboard (event files) and checkpoints/best and last. SIGTERM saves and leaves (exit code
/// 143); --resume goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby train --config configs/resnet50-rgby.toml --from resnet50.onnx \\\n    \
    --images train/ --labels train.csv --out runs/first"
)]
pub struct TrainArgs {
    /// Checkpoint to start from, as `rgby convert` makes it, or an ONNX file: a pretrained network,
    /// which is converted by the way, or one that rgby exported; random weights if absent
    #[arg(long, value_name = "CKPT|FILE")]
    pub from: Option<PathBuf>,
    /// Config, data, device and folder of the run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of both training commands.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Config of the run, TOML
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Override one value of the config
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of <Id>_<stain> images, with the stains of model.channels, or a manifest that names
    /// them
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet")]
    pub images: PathBuf,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// CSV `Id,Target`, classes separated by spaces
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// Decode and resize the images once into this file and train from it; one that is there
    /// already is used as it is
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
    /// Where the features of a frozen backbone are kept: a folder that several runs may share, or
    /// `off` to compute them in each step [default: in RUN, as long as they are needed]
    #[arg(long, value_name = "DIR|off")]
    pub feature_cache: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// cpu, cuda[:i] or wgpu[:i]; `rgby devices` lists those that are there
    #[arg(long, default_value = "cpu")]
    pub device: TrainDevice,
    /// Measure BatchNorm statistics on N training samples before the first step; 0 for not at all
    /// [default: 256 for a checkpoint whose BatchNorm was folded, else 0]
    #[arg(long, value_name = "N")]
    pub recalibrate: Option<usize>,
    /// Save checkpoints/last within an epoch too: "100 steps" or "10 minutes"
    #[arg(long, value_name = "INTERVAL")]
    pub checkpoint_every: Option<Every>,
    /// Go on with the run in --out where it stopped
    #[arg(long)]
    pub resume: bool,
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

/// What becomes of a checkpoint's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum HeadChoice {
    /// Keep it where the config's head has the same layers and classes.
    #[default]
    Auto,
    /// Keep it; an error where it does not fit.
    Keep,
    /// Keep its layers up to the first that differs from the config's; the output is new.
    Prefix,
    /// Replace it by a new one.
    Replace,
}

impl RunArgs {
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
        let unfolded = from.as_ref().is_some_and(|start| start.unfolded);
        let default = if unfolded { RECALIBRATE_DEFAULT } else { 0 };
        memory::keep_freed_memory();
        let device = self.device.open().map_err(anyhow::Error::msg)?;
        let classes = config.model.classes.len();
        let stains = config.preprocess().stains();
        let dataset = Dataset::open(
            &self.layout.of(&self.images)?,
            &self.labels,
            &stains,
            classes,
        )?;
        let signals = Signals::listen()?;
        let (epochs, samples) = (config.train.epochs, dataset.len());
        ui.note(&format!(
            "{} at {}², {samples} samples, {classes} classes, {epochs} epochs, on {} → {}",
            config.model.arch.name(),
            config.model.input_size,
            self.device,
            self.out.display()
        ));
        let job = Job {
            cache: self.open_cache(&dataset, &config, ui)?.map(Arc::new),
            dataset: Arc::new(dataset),
            config,
            features: (self.feature_cache.as_deref() != Some(Path::new("off"))).then(|| {
                FeatureCache {
                    folder: self.feature_cache.clone(),
                    extractor: if self.device == TrainDevice::Cpu {
                        &on_onnx_runtime
                    } else {
                        &|_, _| Ok(None)
                    },
                }
            }),
            from: from.as_ref().map(|start| (start.dir.clone(), start.keep)),
            recalibrate: self.recalibrate.unwrap_or(default),
            out: self.out.clone(),
            resume: self.resume,
            checkpoint_every: self.checkpoint_every,
            device,
            stop: signals.stop(),
        };
        let watch = Screen::new(ui, &self.out, epochs);
        let ended = train(job, &watch)?;
        watch.bar.finish_and_clear();
        Ok(match ended {
            Ended::Finished => {
                let out = self.out.display();
                ui.note(&format!(
                    "{out}/checkpoints/best is the epoch of the lowest loss; `rgby export --from \
                     {out} --out model.onnx` makes a file of it to score with"
                ));
                Outcome::Done
            }
            Ended::Stopped => signals.outcome(),
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

impl RunArgs {
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
}

/// The checkpoint that a run starts from.
struct Start {
    dir: PathBuf,
    keep: Keep,
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
        _ if headless => Keep::Backbone,
        HeadChoice::Prefix => Keep::Prefix,
        HeadChoice::Keep | HeadChoice::Auto if theirs.same_head(model) => Keep::All,
        HeadChoice::Auto | HeadChoice::Replace => Keep::Backbone,
        HeadChoice::Keep => bail!(
            "{}: its head has other layers or classes than the config; make model.hidden, \
             projection, pooling, input_norm and classes agree, or use --head prefix or replace",
            shown.display()
        ),
    };
    ui.note(&format!(
        "starting from {}, its head {}",
        shown.display(),
        match keep {
            Keep::All => "kept",
            Keep::Prefix => "kept as far as its layers are the config's",
            Keep::Backbone => "replaced by a new one",
        }
    ));
    Ok(Start {
        dir,
        keep,
        unfolded: checkpoint.unfolded > 0,
        _made: made,
    })
}

/// Progress on the screen, and the same in RUN/log.txt.
struct Screen<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    epochs: u32,
    out: PathBuf,
    log: Mutex<Log>,
}

/// RUN/log.txt. The folder appears only once the run can start; lines before that wait for it.
#[derive(Default)]
struct Log {
    file: Option<File>,
    waiting: String,
}

impl<'a> Screen<'a> {
    fn new(ui: &'a Ui, out: &Path, epochs: u32) -> Self {
        let bar = ui.progress(0, "reading images");
        Self {
            ui,
            bar,
            epochs,
            out: out.to_owned(),
            log: Mutex::default(),
        }
    }

    fn log(&self, line: &str) -> anyhow::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.waiting += line;
        log.waiting.push('\n');
        if !self.out.is_dir() {
            return Ok(());
        }
        let mut file = if let Some(file) = log.file.take() {
            file
        } else {
            let path = self.out.join("log.txt");
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| path.display().to_string())?
        };
        file.write_all(std::mem::take(&mut log.waiting).as_bytes())?;
        log.file = Some(file);
        Ok(())
    }
}

impl Watch for Screen<'_> {
    fn step(&self, report: &StepReport) {
        Ui::set_length(&self.bar, u64::from(self.epochs) * report.steps as u64);
        let done = u64::from(report.epoch - 1) * report.steps as u64 + report.step as u64;
        self.bar.set_position(done);
        self.bar.set_message(format!(
            "epoch {}/{}  loss {:.4}  {:.1} images/s",
            report.epoch, self.epochs, report.loss, report.images_per_s
        ));
    }

    fn extracted(&self, done: usize, all: usize) {
        Ui::set_length(&self.bar, all as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message("features of the frozen part");
    }

    fn epoch(&self, row: &EpochRow, timing: &TimingRow) {
        self.note(&format!(
            "epoch {:>3}  loss {:.4}  validation {:.4}  macro-F1 {:.4}  {:.1} images/s  {:.0} s, \
             of which {:.0} % waiting for data",
            row.epoch,
            row.train_loss,
            row.valid_loss.unwrap_or(f64::NAN),
            row.f1_mean,
            timing.images_per_s,
            timing.seconds,
            100.0 * timing.waited / timing.seconds.max(1e-9)
        ));
    }

    fn note(&self, text: &str) {
        self.ui.note(text);
        if let Err(error) = self.log(text) {
            self.ui.warn(&format!("the log was not written: {error:#}"));
        }
    }
}
