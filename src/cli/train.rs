//! `rgby train`, and what `retrain` shares with it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;

use super::{Outcome, Ui};
use crate::data::Dataset;
use crate::model::{Keep, ModelConfig};
use crate::report::EpochRow;
use crate::train::{
    Checkpoint, Config, Ended, Job, StepReport, TrainDevice, Watch, resolve, train,
};

/// Train a network from a config: from a converted checkpoint, or from random weights
///
/// Writes RUN/config.toml (everything resolved), metrics.csv (a row an epoch), log.txt, plots and
/// checkpoints/best and last. SIGTERM saves and leaves (exit code 143); --resume goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby train --config configs/resnet50-rgby.toml --from initial \\\n    \
    --images train/ --labels train.csv --out runs/first"
)]
pub struct TrainArgs {
    /// Checkpoint to start from, as `rgby convert` makes it; random weights if absent
    #[arg(long, value_name = "CKPT")]
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
    /// Folder of <Id>_<red|green|blue|yellow> images
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// CSV `Id,Target`, classes separated by spaces
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// Folder of the run
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// cpu, cuda[:i] or wgpu[:i]
    #[arg(long, default_value = "cpu")]
    pub device: TrainDevice,
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
        let device = self.device.open().map_err(anyhow::Error::msg)?;
        let classes = config.model.classes.len();
        let dataset = Dataset::open(&self.images, &self.labels, &config.model.channels, classes)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            signal_hook::flag::register(signal, stop.clone())?;
        }
        let (epochs, samples) = (config.train.epochs, dataset.len());
        ui.note(&format!(
            "{} at {}², {samples} samples, {classes} classes, {epochs} epochs, on {} → {}",
            config.model.arch.name(),
            config.model.input_size,
            self.device,
            self.out.display()
        ));
        let job = Job {
            config,
            dataset: Arc::new(dataset),
            from,
            out: self.out.clone(),
            resume: self.resume,
            device,
            stop: &stop,
        };
        let watch = Screen::new(ui, &self.out, epochs);
        let ended = train(job, &watch)?;
        watch.bar.finish_and_clear();
        Ok(match ended {
            Ended::Finished => Outcome::Done,
            Ended::Stopped => Outcome::Stopped,
        })
    }
}

/// The checkpoint to load, and what of it.
fn starting_point(
    path: &Path,
    model: &ModelConfig,
    head: HeadChoice,
    ui: &Ui,
) -> anyhow::Result<(PathBuf, Keep)> {
    ensure!(
        !path.is_file(),
        "{} is a file; --from takes a checkpoint or run folder (to start from an ONNX file, make \
         a checkpoint of it with `rgby convert`)",
        path.display()
    );
    let dir = resolve(path)?;
    let theirs = Checkpoint::open(&dir)?.model;
    ensure!(
        theirs.arch == model.arch,
        "{} holds {}, the config asks for {} (model.arch)",
        dir.display(),
        theirs.arch.name(),
        model.arch.name()
    );
    ensure!(
        theirs.channels == model.channels,
        "{} takes the channels {:?}, the config gives {:?} (model.channels)",
        dir.display(),
        theirs.channels,
        model.channels
    );
    let keep = match head {
        HeadChoice::Prefix => Keep::Prefix,
        HeadChoice::Keep | HeadChoice::Auto if theirs.same_head(model) => Keep::All,
        HeadChoice::Auto | HeadChoice::Replace => Keep::Backbone,
        HeadChoice::Keep => bail!(
            "{}: its head has other layers or classes than the config; make model.hidden, \
             projection, pooling, input_norm and classes agree, or use --head prefix or replace",
            dir.display()
        ),
    };
    ui.note(&format!(
        "starting from {}, its head {}",
        dir.display(),
        match keep {
            Keep::All => "kept",
            Keep::Prefix => "kept as far as its layers are the config's",
            Keep::Backbone => "replaced by a new one",
        }
    ));
    Ok((dir, keep))
}

/// Progress on the screen, and the same in RUN/log.txt.
struct Screen<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    epochs: u32,
    out: PathBuf,
    log: Mutex<Option<File>>,
}

impl<'a> Screen<'a> {
    fn new(ui: &'a Ui, out: &Path, epochs: u32) -> Self {
        let bar = ui.progress(0, "");
        Self {
            ui,
            bar,
            epochs,
            out: out.to_owned(),
            log: Mutex::new(None),
        }
    }

    fn log(&self, line: &str) -> anyhow::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_none() {
            let path = self.out.join("log.txt");
            let file = OpenOptions::new().create(true).append(true).open(&path);
            *log = Some(file.with_context(|| path.display().to_string())?);
        }
        if let Some(file) = log.as_mut() {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

impl Watch for Screen<'_> {
    fn step(&self, report: &StepReport) {
        self.bar
            .set_length(u64::from(self.epochs) * report.steps as u64);
        let done = u64::from(report.epoch - 1) * report.steps as u64 + report.step as u64;
        self.bar.set_position(done);
        self.bar.set_message(format!(
            "epoch {}/{}  loss {:.4}  {:.1} images/s",
            report.epoch, self.epochs, report.loss, report.images_per_s
        ));
    }

    fn epoch(&self, row: &EpochRow) {
        self.note(&format!(
            "epoch {:>3}  loss {:.4}  validation {:.4}  macro-F1 {:.4}  {:.1} images/s  {:.0} s",
            row.epoch,
            row.train_loss,
            row.valid_loss.unwrap_or(f64::NAN),
            row.f1_mean,
            row.images_per_s,
            row.seconds
        ));
    }

    fn note(&self, text: &str) {
        self.ui.note(text);
        if let Err(error) = self.log(text) {
            self.ui.warn(&format!("the log was not written: {error:#}"));
        }
    }
}
