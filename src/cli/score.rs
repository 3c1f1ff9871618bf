//! `rgby score`: predictions for a folder of images; and the [`Scorer`] that `eval` uses too.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;

use super::{Outcome, Ui};
use crate::imaging::{DecodeLimits, Sample, find_samples};
use crate::score::{
    Device, Engine, EngineChoice, ModelFile, OrtEngine, PipelineOptions, Runtime, RuntimeOptions,
    ScoreTable, output, score,
};
use crate::spec::ModelSpec;

/// Score a folder of images with an exported model
///
/// Writes the predicted classes of every sample to a CSV file, `Id,Predicted`, and its
/// probabilities to another one if asked for. A sample that cannot be read is listed in
/// FILE.errors.csv and gets an empty prediction; the rest is scored, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby score --model model.onnx --images test --ids sample_submission.csv --out submission.csv

Images are <Id>_<stain>.png|jpg|jpeg|tif|tiff, with the model's stains, 8 or 16 bit, of any size.")]
pub struct ScoreArgs {
    /// The model, as `rgby export` wrote it
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Folder that holds the image files
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Score these samples only, in this order: the ids in the first column of a CSV file with a
    /// header [default: all, by id]
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// Where the predicted classes go: `Id,Predicted`, classes separated by spaces
    #[arg(long, value_name = "FILE.csv")]
    pub out: PathBuf,
    /// Where the probabilities go: `Id` and a column for each class
    #[arg(long, value_name = "FILE.csv")]
    pub scores: Option<PathBuf>,
    /// A class is predicted from this probability on: a number for all classes, or `tuned` for the
    /// model's own thresholds
    #[arg(long, value_name = "T|tuned", default_value = "tuned")]
    pub threshold: Threshold,
    /// How to run the model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print what was done to stdout as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// From which probability on a class is predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Threshold {
    /// Each class has the model's own.
    #[default]
    Tuned,
    /// One for all classes, 0–1.
    Fixed(f32),
}

impl Threshold {
    /// The threshold of each class of a model.
    #[must_use]
    pub fn for_model(self, spec: &ModelSpec) -> Vec<f32> {
        match self {
            Self::Tuned => spec.thresholds.clone(),
            Self::Fixed(threshold) => vec![threshold; spec.classes.len()],
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "tuned" => Ok(Self::Tuned),
            Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(Self::Fixed(threshold)),
            _ => Err("use a number from 0 to 1, or `tuned` for the model's own".into()),
        }
    }
}

/// How to run a model.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Samples that the model is given at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Where the model runs: cpu, cuda, cuda:1, tensorrt, …
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// What runs the model: onnxruntime, the embedded tract, or auto: ONNX Runtime if it is found
    #[arg(long, value_name = "ENGINE", default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// ONNX Runtime's library, if it is not where it would be found
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Threads that read and decode images [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub decode_threads: Option<u16>,
}

impl Default for EngineArgs {
    fn default() -> Self {
        Self {
            batch: 8,
            device: Device::default(),
            engine: EngineChoice::default(),
            ort_lib: None,
            decode_threads: None,
        }
    }
}

/// A model, ready to score samples.
pub struct Scorer {
    engines: Vec<Box<dyn Engine>>,
    engine: String,
    options: PipelineOptions,
}

impl Scorer {
    /// Starts the engine on `model` and notes which one runs.
    ///
    /// # Errors
    ///
    /// The engine or the device cannot be had, or the engine cannot load the model.
    pub fn start(model: &ModelFile, args: &EngineArgs, ui: &Ui) -> anyhow::Result<Self> {
        let runtime = Runtime::start(&RuntimeOptions {
            engine: args.engine,
            device: args.device,
            ort_lib: args.ort_lib.clone(),
        })?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let engines = OrtEngine::load_all(runtime, model, threads)?;
        let engine = runtime.describe();
        let reason = runtime.notice().map(|notice| format!("; {notice}"));
        ui.note(&format!("engine: {engine}{}", reason.unwrap_or_default()));
        let options = PipelineOptions {
            batch: args.batch.into(),
            decode_threads: args.decode_threads.map_or(threads, usize::from),
            limits: DecodeLimits::default(),
        };
        Ok(Self {
            engines,
            engine,
            options,
        })
    }

    /// Scores samples, with a progress bar, and notes how fast that was.
    ///
    /// # Errors
    ///
    /// The engine fails; a sample that cannot be read is no error but among the table's failures.
    pub fn score(&mut self, samples: &[Sample], ui: &Ui) -> anyhow::Result<Scored> {
        let bar = ui.progress(samples.len() as u64, "scoring");
        let start = Instant::now();
        let done = |count: usize| bar.set_position(count as u64);
        let table = score(&mut self.engines, samples, &self.options, &done);
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let scored = Scored {
            table: table?,
            engine: self.engine.clone(),
            seconds,
        };
        ui.note(&scored.summary());
        Ok(scored)
    }
}

/// Scored samples, by what and how fast.
#[derive(Debug)]
pub struct Scored {
    /// The probabilities and the failures.
    pub table: ScoreTable,
    /// What ran the model, and where.
    pub engine: String,
    /// Wall-clock seconds from the first file to the last probability.
    pub seconds: f64,
}

impl Scored {
    /// Samples per second, failed ones included.
    #[must_use]
    pub fn samples_per_s(&self) -> f64 {
        self.table.ids.len() as f64 / self.seconds.max(1e-9)
    }

    fn summary(&self) -> String {
        format!(
            "{} samples, {} failed, {:.1} s, {:.1} samples/s",
            self.table.ids.len(),
            self.table.failures.len(),
            self.seconds,
            self.samples_per_s()
        )
    }
}

/// Opens a model for scoring.
///
/// # Errors
///
/// It is not a file that `rgby export` wrote; a run or a checkpoint must be exported first.
pub fn open_model(path: &Path) -> anyhow::Result<ModelFile> {
    if path.is_dir() || path.extension().is_some_and(|e| e == "safetensors") {
        let path = path.display();
        bail!(
            "--model {path}: is not an ONNX file; if it is a run or a checkpoint, export it first: \
             `rgby export --from {path} --out model.onnx`"
        );
    }
    Ok(ModelFile::open(path)?)
}

impl ScoreArgs {
    /// Scores the samples and writes the files.
    ///
    /// # Errors
    ///
    /// Nothing was written: a file that is read or written is not what it should be, or the
    /// engine cannot be had or fails.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let errors = self.check_outputs()?;
        let model = open_model(&self.model)?;
        let samples = self.samples(&model)?;
        let scored = Scorer::start(&model, &self.engine, ui)?.score(&samples, ui)?;
        self.write(&scored.table, model.spec(), &errors)?;
        self.report(&scored, &errors, ui)
    }

    /// Checks, before any work, that the output files can be written; returns where the failed
    /// samples are listed.
    fn check_outputs(&self) -> anyhow::Result<PathBuf> {
        let errors = output::errors_path(&self.out);
        check_output("--out", &self.out)?;
        check_output("the list of failed samples,", &errors)?;
        let Some(scores) = &self.scores else {
            return Ok(errors);
        };
        check_output("--scores", scores)?;
        for other in [&self.out, &errors] {
            ensure!(
                absolute(scores)? != absolute(other)?,
                "--scores {} is where another result goes; give it a name of its own",
                scores.display()
            );
        }
        Ok(errors)
    }

    /// The samples to score, in the order of the output.
    fn samples(&self, model: &ModelFile) -> anyhow::Result<Vec<Sample>> {
        let ids = self.ids.as_deref().map(output::read_ids).transpose()?;
        let samples = find_samples(&self.images, &model.spec().preprocess.stains())?;
        Ok(match ids {
            Some(ids) => output::select(samples, &ids),
            None => samples,
        })
    }

    /// Writes the files; the predictions last, so that where they are the rest is too.
    fn write(&self, table: &ScoreTable, spec: &ModelSpec, errors: &Path) -> anyhow::Result<()> {
        if let Some(scores) = &self.scores {
            output::write_scores(scores, table, &spec.classes)?;
        }
        output::write_errors(errors, &table.failures)?;
        output::write_predictions(&self.out, table, &self.threshold.for_model(spec))?;
        Ok(())
    }

    /// Says what was written and what failed.
    fn report(&self, scored: &Scored, errors: &Path, ui: &Ui) -> anyhow::Result<Outcome> {
        let (samples, failed) = (scored.table.ids.len(), scored.table.failures.len());
        ui.note(&format!("predictions: {}", self.out.display()));
        if let Some(scores) = &self.scores {
            ui.note(&format!("probabilities: {}", scores.display()));
        }
        if self.json {
            ui.print_json(&json!({
                "model": self.model,
                "engine": scored.engine,
                "samples": samples,
                "failed": failed,
                "seconds": scored.seconds,
                "samples_per_s": scored.samples_per_s(),
                "out": self.out,
                "scores": self.scores,
                "errors": (failed > 0).then_some(errors),
            }))?;
        }
        if failed == 0 {
            return Ok(Outcome::Done);
        }
        let errors = errors.display();
        ui.warn(&format!(
            "{failed} of {samples} samples failed; they are listed in {errors}"
        ));
        Ok(Outcome::SomeFailed)
    }
}

/// Checks that a file can be written at `path` without writing it.
fn check_output(what: &str, path: &Path) -> anyhow::Result<()> {
    output::check_path(path)?;
    let file = path.display();
    ensure!(
        !path.is_dir(),
        "{what} {file} is a folder; name a file in it"
    );
    // Renaming a finished file to the name of a device or pipe would replace it.
    ensure!(
        !path.exists() || path.is_file(),
        "{what} {file} is not an ordinary file; name one"
    );
    let folder = absolute(path)?
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    ensure!(
        folder.is_dir(),
        "{what} {file}: there is no folder {}; make it first",
        folder.display()
    );
    // The file goes with its handle.
    tempfile::tempfile_in(&folder).with_context(|| format!("{what} {file} cannot be written"))?;
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_parse() {
        assert_eq!("tuned".parse(), Ok(Threshold::Tuned));
        assert_eq!("0.05".parse(), Ok(Threshold::Fixed(0.05)));
        for text in ["", "1.1", "-0.1", "nan", "Tuned", "0,5"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
