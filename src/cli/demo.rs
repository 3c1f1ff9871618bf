//! `rgby demo`: the whole path on synthetic data.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;

use super::synth::synthesize;
use super::train::screen::Screen;
use super::{Outcome, Ui};
use crate::convert::{ConvertConfig, convert};
use crate::data::{Dataset, Images};
use crate::eval::{self, EvalConfig, EvalReport, EvalSubject};
use crate::export::{ExportConfig, export};
use crate::graph::Message;
use crate::memory;
use crate::model::{Arch, ConversionOptions, random_export};
use crate::model_metadata::Precision;
use crate::score::{self, EngineChoice, ScoreConfig, Threshold};
use crate::synth::SynthConfig;
use crate::tracking::Tracker;
use crate::train::{Config, HeadChoice, RunOrigin, StartingPoint, TrainDevice, TrainJob, train};

/// Run the whole path on synthetic data: convert, train, retrain, export, score, evaluate
///
/// Takes about two minutes on two cores and needs no other files or programs. Images, labels and
/// the "pretrained" weights are synthetic. The demo shows that every step works; its metrics say
/// nothing about real cells.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby demo --out demo")]
pub struct DemoArgs {
    /// Output folder; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "rgby-demo")]
    pub out: PathBuf,
}

/// Marks the folder of a demo; a folder without this file is not replaced.
const MARKER: &str = "made-by-rgby-demo";
/// Classes that can be distinguished at 48×48 pixels: nucleoplasm, Golgi apparatus, microtubules,
/// plasma membrane, cytosol.
const CLASSES: [u16; 5] = [0, 7, 14, 21, 25];
const CONFIG: &str = "\
# ResNet50 at 48×48 pixels on synthetic samples.
[model]
arch = \"resnet50\"
input_size = 48

[train]
epochs = 3
batch_size = 16
seed = 0

[optimizer]
name = \"adadelta\"
constants = \"pytorch\"

[data]
split = \"random:0.1\"
";

impl DemoArgs {
    /// Runs the demo.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, or a step failed.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        self.prepare()?;
        ui.note("Everything here is synthetic: the cells, their labels and the starting weights.");
        let mut log = StepLog {
            ui,
            rows: Vec::new(),
        };
        log.step("synth", "train/ and test/", || self.synthesize(ui))?;
        log.step("convert", "initial/", || self.convert(ui))?;
        fs::write(self.out.join("config.toml"), CONFIG)?;
        log.step("train", "run/", || {
            self.train(("initial", "run"), HeadChoice::Auto, &[], ui)
        })?;
        log.step("retrain", "rerun/", || {
            let overrides = ["optimizer.name=adam", "optimizer.lr=1e-4", "train.epochs=1"];
            let overrides = overrides.map(str::to_owned);
            self.train(("run", "rerun"), HeadChoice::Keep, &overrides, ui)
        })?;
        log.step("export", "model.onnx", || self.export(ui))?;
        log.step("score", "predictions.csv, scores.csv", || self.score(ui))?;
        let report = log.step("eval", "report/", || self.evaluate(ui))?;
        ui.print(&self.summary(&log, &report, start))?;
        Ok(Outcome::Done)
    }

    fn synthesize(&self, ui: &Ui) -> anyhow::Result<()> {
        for (name, count, seed) in [("train", 512, 0), ("test", 128, 1)] {
            let config = SynthConfig {
                count,
                size: 128,
                seed,
                classes: CLASSES.to_vec(),
            };
            synthesize(&self.out.join(name), &config, ui)?;
        }
        Ok(())
    }

    /// Converts a network with random weights in place of a pretrained one.
    fn convert(&self, ui: &Ui) -> anyhow::Result<()> {
        let onnx = self.out.join("pretrained.onnx");
        fs::write(&onnx, random_export(Arch::ResNet50, 0)?.write_to_bytes()?)?;
        let report = convert(&ConvertConfig {
            onnx,
            out: self.out.join("initial"),
            options: ConversionOptions::default(),
        })?;
        ui.note(&report.to_string());
        Ok(())
    }

    /// Trains a run in `out` that starts from the checkpoint or run `from`.
    fn train(
        &self,
        (from, out): (&str, &str),
        head: HeadChoice,
        overrides: &[String],
        ui: &Ui,
    ) -> anyhow::Result<()> {
        let config = Config::read(&self.out.join("config.toml"), overrides)?;
        let start = StartingPoint::open(&self.out.join(from), &config.model, head)?;
        ui.note(&start.to_string());
        memory::keep_freed_memory();
        let images = Images::plain(self.out.join("train/images"));
        let labels = self.out.join("train/labels.csv");
        let stains = config.preprocess().stains();
        let dataset = Dataset::open(&images, &labels, &stains, config.model.classes.len())?;
        let origin = RunOrigin::new(TrainDevice::Cpu, &images, &labels, Some(&start));
        let device = TrainDevice::Cpu.open().map_err(anyhow::Error::msg)?;
        let out = self.out.join(out);
        let observer = Screen::new(ui, &out, config.train.epochs, Tracker::default());
        let stop = AtomicBool::new(false);
        let job = TrainJob {
            from: Some(start),
            origin,
            ..TrainJob::new(config, Arc::new(dataset), out, device, &stop)
        };
        let end = train(job, &observer);
        observer.end(&end);
        end?;
        Ok(())
    }

    fn export(&self, ui: &Ui) -> anyhow::Result<()> {
        let config = ExportConfig {
            from: self.out.join("rerun"),
            out: self.out.join("model.onnx"),
            thresholds: None,
            precision: Precision::Fp32,
            calibrate: None,
            labels: None,
            embeddings: false,
            engine: EngineChoice::Auto,
            ort_lib: None,
        };
        let report = export(&config, &ui.observer())?;
        ui.note(&report.to_string());
        Ok(())
    }

    fn score(&self, ui: &Ui) -> anyhow::Result<()> {
        let config = ScoreConfig {
            scores: Some(self.out.join("scores.csv")),
            ..ScoreConfig::new(
                self.out.join("model.onnx"),
                self.out.join("test/images"),
                self.out.join("predictions.csv"),
            )
        };
        let report = score::run(&config, &ui.scoring())?;
        ensure!(report.failed == 0, "{} samples failed", report.failed);
        Ok(())
    }

    fn evaluate(&self, ui: &Ui) -> anyhow::Result<EvalReport> {
        let config = EvalConfig {
            labels: Some(self.out.join("test/labels.csv")),
            images: Some(Images::plain(self.out.join("test/images"))),
            threshold: Some(Threshold::Fixed(0.3)),
            ..EvalConfig::new(EvalSubject::Scores(self.out.join("scores.csv")))
        };
        let report = eval::run(&config, &ui.scoring())?;
        report.write(&self.out.join("report"))?;
        Ok(report)
    }

    /// Creates the folder, or empties that of an earlier demo.
    fn prepare(&self) -> anyhow::Result<()> {
        let out = &self.out;
        let name = out.display();
        ensure!(
            !out.is_file(),
            "{name} is a file\nhint: --out names a folder"
        );
        let marker = out.join(MARKER);
        if marker.is_file() {
            fs::remove_dir_all(out).with_context(|| name.to_string())?;
        }
        let is_free = !out.exists() || fs::read_dir(out)?.next().is_none();
        ensure!(
            is_free,
            "{name} contains other files\nhint: choose a new folder with --out"
        );
        fs::create_dir_all(out).with_context(|| name.to_string())?;
        fs::write(marker, "").with_context(|| name.to_string())
    }

    fn summary(&self, log: &StepLog, report: &EvalReport, start: Instant) -> String {
        let mut text = format!(
            "\n{:<9} {:>8}  output in {}\n",
            "step",
            "seconds",
            self.out.display()
        );
        for row in &log.rows {
            text += &format!("{:<9} {:>8.1}  {}\n", row.step, row.seconds, row.output);
        }
        let evaluation = report.evaluation();
        text += &format!(
            "{:<9} {:>8.1}\n\nOn {} held-out synthetic samples: macro-F1 {:.3} over the {} classes \
             that occur; the best guess without the images reaches {:.3}.\n",
            "total",
            start.elapsed().as_secs_f64(),
            evaluation.samples,
            evaluation.macro_f1_present,
            CLASSES.len(),
            // Chance is a mean over all classes; absent classes contribute nothing to its sum.
            evaluation.chance.best() * evaluation.classes.len() as f64 / CLASSES.len() as f64,
        );
        let out = self.out.display();
        text + &format!(
            "\nNext:\n  open {out}/report/report.html in a browser\n  \
             rgby serve --model {out}/model.onnx, then open http://127.0.0.1:8000\n  \
             docs/quick-start.md describes the same steps with your own images\n"
        )
    }
}

/// The finished steps, for the table at the end.
struct StepLog<'a> {
    ui: &'a Ui,
    rows: Vec<DemoStep>,
}

struct DemoStep {
    step: &'static str,
    output: &'static str,
    seconds: f64,
}

impl StepLog<'_> {
    fn step<T>(
        &mut self,
        step: &'static str,
        output: &'static str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.ui.note(&format!("── {step} → {output}"));
        let start = Instant::now();
        let result = work().with_context(|| format!("step {step}"))?;
        self.rows.push(DemoStep {
            step,
            output,
            seconds: start.elapsed().as_secs_f64(),
        });
        Ok(result)
    }
}
