//! `rgby score`: predictions for a folder of images.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::scorer::{EngineArgs, Scorer, Threshold, open_model};
use super::signals::Signals;
use super::{Outcome, Ui};
use crate::fsx::hex;
use crate::imaging::{Sample, find_samples};
use crate::score::{ModelFile, Parts, RunKey, output};
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
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub out: PathBuf,
    /// Where the probabilities go: `Id` and a column for each class
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub scores: Option<PathBuf>,
    /// A class is predicted from this probability on: a number for all classes, or `tuned` for the
    /// model's own thresholds
    #[arg(long, value_name = "T|tuned", default_value = "tuned")]
    pub threshold: Threshold,
    /// Go on with a run that was stopped or killed: results are kept in FILE.parts until they are
    /// complete
    #[arg(long)]
    pub resume: bool,
    /// Samples that are kept at a time; a killed run loses no more work than that, nor more than
    /// about ten seconds' worth
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..))]
    pub part_size: u16,
    /// Stop once more samples than this cannot be read [default: never]
    #[arg(long, value_name = "N")]
    pub max_errors: Option<usize>,
    /// How to run the model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print what was done to stdout as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// What a finished run has to say.
struct Report<'a> {
    engine: &'a str,
    samples: usize,
    /// Those of them that this process scored.
    scored: usize,
    failed: usize,
    seconds: f64,
    errors: &'a Path,
}

impl ScoreArgs {
    /// Scores the samples and writes the files.
    ///
    /// # Errors
    ///
    /// A file that is read or written is not what it should be, or the engine cannot be had or
    /// fails; what was scored is kept beside --out.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let errors = self.check_outputs()?;
        let model = open_model(&self.model)?;
        let samples = self.samples(&model)?;
        let mut scorer = Scorer::start(&model, &self.engine, ui)?;
        let key = self.key(&model, scorer.engine(), &samples);
        let classes = &model.spec().classes;
        let form = (classes.as_slice(), self.part_size.into());
        let mut parts = Parts::open(&self.out, key, form, self.resume)?;
        if parts.done() > 0 {
            ui.note(&format!(
                "going on after {} of {} samples",
                parts.done(),
                samples.len()
            ));
        }
        let signals = Signals::listen()?;
        let most_failures = self.max_errors.unwrap_or(usize::MAX);
        let limits = (most_failures, signals.stop());
        let before = parts.done();
        let seconds = scorer.score_parts(&samples, &mut parts, limits, ui);
        let seconds = seconds.map_err(|error| self.kept(error, &parts, samples.len()))?;
        if parts.done() < samples.len() {
            ui.note(&format!(
                "stopped after {} of {} samples; go on with --resume",
                parts.done(),
                samples.len()
            ));
            return Ok(signals.outcome());
        }
        self.write(&parts, model.spec(), &errors)?;
        let failed = parts.failed();
        parts.remove()?;
        let report = Report {
            engine: scorer.engine(),
            samples: samples.len(),
            scored: samples.len() - before,
            failed,
            seconds,
            errors: &errors,
        };
        self.report(&report, ui)
    }

    /// What the probabilities depend on.
    fn key(&self, model: &ModelFile, engine: &str, samples: &[Sample]) -> RunKey {
        let mut ids = Sha256::new();
        for sample in samples {
            ids.update((sample.id.len() as u64).to_le_bytes());
            ids.update(&sample.id);
        }
        RunKey {
            models: vec![model.sha256()],
            engine: engine.to_owned(),
            options: format!("batch {}", self.engine.batch),
            samples: hex(&ids.finalize()),
            count: samples.len(),
        }
    }

    /// Says with an error what of the work is kept.
    fn kept(&self, error: anyhow::Error, parts: &Parts, samples: usize) -> anyhow::Error {
        match parts.done() {
            0 => error,
            done => error.context(format!(
                "{done} of {samples} samples are kept beside {}; mend this, then go on with \
                 --resume",
                self.out.display()
            )),
        }
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
    fn write(&self, parts: &Parts, spec: &ModelSpec, errors: &Path) -> anyhow::Result<()> {
        if let Some(scores) = &self.scores {
            output::write_scores(scores, &mut parts.tables(), &spec.classes)?;
        }
        output::write_errors(errors, &parts.failures())?;
        let thresholds = self.threshold.for_model(spec);
        output::write_predictions(&self.out, &mut parts.tables(), &thresholds)?;
        Ok(())
    }

    /// Says what was written and what failed.
    fn report(&self, report: &Report, ui: &Ui) -> anyhow::Result<Outcome> {
        let &Report {
            engine,
            samples,
            scored,
            failed,
            seconds,
            errors,
        } = report;
        ui.note(&format!("predictions: {}", self.out.display()));
        if let Some(scores) = &self.scores {
            ui.note(&format!("probabilities: {}", scores.display()));
        }
        if self.json {
            ui.print_json(&json!({
                "model": self.model,
                "engine": engine,
                "samples": samples,
                "resumed_at": samples - scored,
                "failed": failed,
                "seconds": seconds,
                "samples_per_s": scored as f64 / seconds.max(1e-9),
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
