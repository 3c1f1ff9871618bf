//! `rgby demo`: the whole path on made-up data, with nothing installed.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, Command};

use super::convert::ConvertArgs;
use super::export::ExportArgs;
use super::retrain::RetrainArgs;
use super::score::ScoreArgs;
use super::synth::SynthArgs;
use super::train::TrainArgs;
use super::{Outcome, Ui};
use crate::data::Images;
use crate::eval::{self, EvalConfig, EvalReport, EvalSubject};
use crate::graph::Message;
use crate::model::{Arch, random_export};
use crate::score::Threshold;

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

/// Written first: only a folder that has it is replaced.
const MARKER: &str = "made-by-rgby-demo";
/// Classes that can be told apart at 48×48: nucleoplasm, Golgi apparatus, microtubules, plasma
/// membrane, cytosol.
const CLASSES: [u16; 5] = [0, 7, 14, 21, 25];
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
        log.step("synth", "train/ and test/", || {
            let classes = CLASSES.map(|class| class.to_string()).join(",");
            for drawn in [
                "--out=@train --count=512 --seed=0",
                "--out=@test --count=128 --seed=1",
            ] {
                let line = format!("{drawn} --size=128 --classes={classes}");
                self.args::<SynthArgs>(&line)?.run(ui)?;
            }
            Ok(())
        })?;
        log.step("convert", "initial/", || {
            let pretrained = random_export(Arch::ResNet50, 0)?.write_to_bytes()?;
            fs::write(self.out.join("pretrained.onnx"), pretrained)?;
            let line = "--onnx=@pretrained.onnx --out=@initial";
            self.args::<ConvertArgs>(line)?.run(ui)
        })?;
        fs::write(self.out.join("config.toml"), CONFIG)?;
        let run = "--config=@config.toml --images=@train/images --labels=@train/labels.csv";
        log.step("train", "run/", || {
            let line = format!("{run} --from=@initial --out=@run");
            self.args::<TrainArgs>(&line)?.run(ui)
        })?;
        log.step("retrain", "rerun/", || {
            let line = format!(
                "{run} --from=@run --head=keep --out=@rerun --set=optimizer.name=adam \
                 --set=optimizer.lr=1e-4 --set=train.epochs=1"
            );
            self.args::<RetrainArgs>(&line)?.run(ui)
        })?;
        log.step("export", "model.onnx", || {
            let line = "--from=@rerun --out=@model.onnx";
            self.args::<ExportArgs>(line)?.run(ui)
        })?;
        log.step("score", "predictions.csv, scores.csv", || {
            let line = "--model=@model.onnx --images=@test/images --out=@predictions.csv \
                        --scores=@scores.csv";
            self.args::<ScoreArgs>(line)?.run(ui)
        })?;
        let report = log.step("eval", "report/", || {
            let config = EvalConfig {
                labels: Some(self.out.join("test/labels.csv")),
                images: Some(Images::plain(self.out.join("test/images"))),
                threshold: Some(Threshold::Fixed(0.3)),
                ..EvalConfig::new(EvalSubject::Scores(self.out.join("scores.csv")))
            };
            let report = eval::run(&config, &ui.scoring())?;
            report.write(&self.out.join("report"))?;
            Ok(report)
        })?;
        ui.print(&self.summary(&log, &report, start))?;
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

    /// What the arguments of a command line mean, each a `--flag=value`; `@` is the demo's folder.
    fn args<T: Args>(&self, line: &str) -> anyhow::Result<T> {
        let words = line.split_whitespace().map(|word| {
            let Some((flag, path)) = word.split_once('@') else {
                return OsString::from(word);
            };
            let mut word = OsString::from(flag);
            word.push(self.out.join(path));
            word
        });
        let command = T::augment_args(Command::new("demo").no_binary_name(true));
        Ok(T::from_arg_matches(&command.try_get_matches_from(words)?)?)
    }

    fn summary(&self, log: &Log, report: &EvalReport, start: Instant) -> String {
        let mut text = format!(
            "\n{:<9} {:>8}  made in {}\n",
            "step",
            "seconds",
            self.out.display()
        );
        for row in &log.rows {
            text += &format!("{:<9} {:>8.1}  {}\n", row.step, row.seconds, row.made);
        }
        let evaluation = report.evaluation();
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
