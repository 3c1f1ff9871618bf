//! `rgby demo`: the whole path on made-up data, with nothing installed.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;

use super::retrain::RetrainArgs;
use super::train::{HeadChoice, RunArgs, TrainArgs};
use super::{
    ConvertArgs, EngineArgs, EvalArgs, ExportArgs, Judgement, LabelledArgs, LayoutArgs, Outcome,
    ScoreArgs, ShardArgs, StoreArgs, SynthArgs, Threshold, TrackingArgs, Ui, VoteArgs, WorkerArgs,
};
use crate::graph::Message;
use crate::model::{Arch, random_export};
use crate::score::EngineChoice;
use crate::spec::Precision;
use crate::train::TrainDevice;

/// Run the whole path on synthetic data: convert, train, retrain, export, score, evaluate
///
/// Takes about two minutes on two cores and needs nothing but this program. Images and labels are
/// synthetic, and so are the "pretrained" weights: what it shows is that every part works, not how
/// well a network can do on real cells.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby demo --out demo")]
pub struct DemoArgs {
    /// Folder of everything that the demo makes; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "rgby-demo")]
    pub out: PathBuf,
}

/// Written first: only a folder that has it is replaced.
const MARKER: &str = "made-by-rgby-demo";
/// Classes that can be told apart at 48×48: nucleoplasm, Golgi apparatus, microtubules, plasma
/// membrane, cytosol.
const CLASSES: [u16; 5] = [0, 7, 14, 21, 25];
const TRAIN_SAMPLES: usize = 512;
const TEST_SAMPLES: usize = 128;
/// Side of the drawn images, pixels.
const IMAGE_SIZE: u32 = 128;
const CONFIG: &str = "\
# The demo's run: ResNet50 at 48×48 on synthetic samples.
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
        let mut log = Log {
            ui,
            rows: Vec::new(),
        };
        let path = |name: &str| self.out.join(name);

        log.step("synth", "train/ and test/", || {
            self.synth("train", TRAIN_SAMPLES, 0, ui)?;
            self.synth("test", TEST_SAMPLES, 1, ui)
        })?;
        log.step("convert", "initial/", || self.convert(ui))?;
        fs::write(path("config.toml"), CONFIG)?;
        log.step("train", "run/", || {
            TrainArgs {
                from: Some(path("initial")),
                run: self.run_args("run", &[]),
            }
            .run(ui)
        })?;
        log.step("retrain", "rerun/", || {
            let set = ["optimizer.name=adam", "optimizer.lr=1e-4", "train.epochs=1"];
            let from = path("run");
            RetrainArgs {
                from,
                head: HeadChoice::Keep,
                run: self.run_args("rerun", &set),
            }
            .run(ui)
        })?;
        log.step("export", "model.onnx", || {
            let (from, out) = (path("rerun"), path("model.onnx"));
            let engine = EngineChoice::Auto;
            ExportArgs {
                from,
                out,
                precision: Precision::Fp32,
                thresholds: None,
                calibrate: None,
                labels: None,
                with_embeddings: false,
                engine,
                ort_lib: None,
                json: false,
            }
            .run(ui)
        })?;
        log.step("score", "predictions.csv, scores.csv", || self.score(ui))?;
        let judgement = log.step("eval", "report/", || {
            let judgement = self.eval().judge(ui)?;
            judgement.write(&self.out.join("report"))?;
            Ok(judgement)
        })?;
        ui.print(&self.summary(&log, &judgement, start))?;
        Ok(Outcome::Done)
    }

    /// Makes the folder, or empties that of an earlier demo.
    fn prepare(&self) -> anyhow::Result<()> {
        let out = &self.out;
        let name = out.display();
        ensure!(!out.is_file(), "{name} is a file; --out names a folder");
        let marker = out.join(MARKER);
        if marker.is_file() {
            fs::remove_dir_all(out).with_context(|| name.to_string())?;
        }
        let free = !out.exists() || fs::read_dir(out)?.next().is_none();
        ensure!(
            free,
            "{name} holds other files; choose a new folder with --out"
        );
        fs::create_dir_all(out).with_context(|| name.to_string())?;
        fs::write(marker, "").with_context(|| name.to_string())
    }

    fn synth(&self, name: &str, count: usize, seed: u64, ui: &Ui) -> anyhow::Result<Outcome> {
        let (out, classes) = (self.out.join(name), CLASSES.to_vec());
        SynthArgs {
            out,
            count,
            size: IMAGE_SIZE,
            seed,
            classes,
        }
        .run(ui)
    }

    fn convert(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let onnx = self.out.join("pretrained.onnx");
        fs::write(&onnx, random_export(Arch::ResNet50, 0)?.write_to_bytes()?)?;
        ConvertArgs::new(onnx, self.out.join("initial")).run(ui)
    }

    fn run_args(&self, out: &str, set: &[&str]) -> RunArgs {
        RunArgs {
            cache: None,
            feature_cache: None,
            config: self.out.join("config.toml"),
            set: set.iter().map(ToString::to_string).collect(),
            data: LabelledArgs {
                images: self.out.join("train").join("images"),
                layout: LayoutArgs::default(),
                labels: self.out.join("train").join("labels.csv"),
            },
            out: self.out.join(out),
            device: TrainDevice::Cpu,
            recalibrate: None,
            checkpoint_every: None,
            resume: false,
            tracking: TrackingArgs::default(),
        }
    }

    fn score(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        ScoreArgs {
            shard: ShardArgs::default(),
            resume: false,
            part_size: 4096,
            max_errors: None,
            failed_ok: false,
            model: self.out.join("model.onnx"),
            spec: None,
            images: Some(self.out.join("test").join("images")),
            layout: LayoutArgs::default(),
            ids: None,
            out: Some(self.out.join("predictions.csv")),
            worker: WorkerArgs::default(),
            scores: Some(self.out.join("scores.csv")),
            embeddings: None,
            threshold: Threshold::Tuned,
            keep_argmax: false,
            vote: VoteArgs::default(),
            engine: EngineArgs::default(),
            store: StoreArgs::default(),
            json: false,
        }
        .run(ui)
    }

    fn eval(&self) -> EvalArgs {
        EvalArgs {
            images: Some(self.out.join("test").join("images")),
            layout: LayoutArgs::default(),
            scores: Some(self.out.join("scores.csv")),
            labels: self.out.join("test").join("labels.csv"),
            threshold: Some(Threshold::Fixed(0.3)),
            out: Some(self.out.join("report")),
            ..EvalArgs::default()
        }
    }

    fn summary(&self, log: &Log, judgement: &Judgement, start: Instant) -> String {
        let mut text = format!(
            "\n{:<9} {:>8}  made in {}\n",
            "step",
            "seconds",
            self.out.display()
        );
        for row in &log.rows {
            text += &format!("{:<9} {:>8.1}  {}\n", row.step, row.seconds, row.made);
        }
        let evaluation = judgement.evaluation();
        text += &format!(
            "{:<9} {:>8.1}\n\nOn {} held-out synthetic samples: macro-F1 {:.3} over the {} classes \
             that occur; the best guess without looking at an image reaches {:.3}.\n",
            "total",
            start.elapsed().as_secs_f64(),
            evaluation.samples,
            evaluation.macro_f1_present,
            CLASSES.len(),
            // Chance is a mean over all classes; the absent ones add nothing to its sum.
            evaluation.chance.best() * evaluation.classes.len() as f64 / CLASSES.len() as f64,
        );
        let out = self.out.display();
        text + &format!(
            "\nNext:\n  open {out}/report/report.html in a browser\n  \
             rgby serve --model {out}/model.onnx, then open http://127.0.0.1:8000\n  \
             docs/quick-start.md has the same with your own images\n"
        )
    }
}

/// What was done, for the closing table.
struct Log<'a> {
    ui: &'a Ui,
    rows: Vec<Row>,
}

struct Row {
    step: &'static str,
    made: &'static str,
    seconds: f64,
}

impl Log<'_> {
    fn step<T>(
        &mut self,
        step: &'static str,
        made: &'static str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.ui.note(&format!("── {step} → {made}"));
        let start = Instant::now();
        let result = work().with_context(|| format!("step {step}"))?;
        self.rows.push(Row {
            step,
            made,
            seconds: start.elapsed().as_secs_f64(),
        });
        Ok(result)
    }
}
