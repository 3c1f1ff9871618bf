//! Running a model over samples: what `score` and `eval` share.

use std::io;
use std::iter::repeat_n;
use std::panic::resume_unwind;
use std::path::Path;
use std::str::FromStr;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::bail;

use super::Ui;
use super::engine_args::{EngineArgs, Started};
use crate::imaging::Sample;
use crate::model_metadata::{ModelSpec, Precision};
use crate::score::{
    Device, Engine, Ensemble, ModelFile, PipelineOptions, ResultParts, ScoreSource, ScoreTable,
    SessionOptions, ThreadPlan, score, score_to,
};

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

/// A model, ready to score samples.
pub struct Scorer {
    engines: Vec<Box<dyn Engine>>,
    started: Started,
    options: PipelineOptions,
}

impl Scorer {
    /// Starts the engine on the models and notes which one runs, and how.
    ///
    /// # Errors
    ///
    /// The engine or a device cannot be had, or the engine cannot load a model.
    pub fn start(ensemble: &Ensemble, args: &EngineArgs, ui: &Ui) -> anyhow::Result<Self> {
        let started = args.start()?;
        let ThreadPlan {
            sessions,
            intra_threads,
            decode_threads,
        } = started.split;
        let session = SessionOptions {
            intra_threads,
            config: started.config.clone(),
        };
        let halved = |model: &ModelFile| model.spec().precision == Precision::Fp16;
        if started.runtimes[0].is_tract() && ensemble.models().iter().any(halved) {
            ui.warn(
                "tract computes float16 some fifty times slower than float32; install ONNX \
                 Runtime, or export with --precision fp32",
            );
        }
        // Loading takes about as long as scoring some tens of samples.
        let engines = thread::scope(|scope| {
            let runtimes = started.runtimes.iter();
            let wanted = runtimes.flat_map(|runtime| repeat_n(runtime, sessions));
            let loading: Vec<_> = wanted
                .map(|runtime| scope.spawn(|| ensemble.load(*runtime, &session)))
                .collect();
            let loaded = loading.into_iter().map(ScopedJoinHandle::join);
            loaded
                .map(|engine| engine.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        started.notes().iter().for_each(|line| ui.note(line));
        let options = PipelineOptions {
            decode_threads,
            // TensorRT builds an engine for a new shape, and cuDNN looks for algorithms.
            whole_batches: started.runtimes[0].device() != Device::Cpu,
            ..args.pipeline()
        };
        Ok(Self {
            engines,
            started,
            options,
        })
    }

    /// Scores the samples that `parts` lacks and writes them there; returns the seconds that took.
    /// If `from.stop` is set meanwhile, what is under way is finished and the rest is left.
    ///
    /// # Errors
    ///
    /// The engine fails, a part cannot be written, or more samples fail than may; what was scored
    /// before is kept in parts.
    pub fn score_parts(
        &mut self,
        from: ScoreSource,
        parts: &mut ResultParts,
        most_failures: usize,
        ui: &Ui,
    ) -> anyhow::Result<f64> {
        let bar = ui.progress(from.samples.len() as u64, "scoring");
        let start = Instant::now();
        let before = parts.done();
        bar.set_position(before as u64);
        bar.reset_eta();
        let left = &from.samples[before..];
        let from = ScoreSource {
            samples: left,
            ..from
        };
        let ended = score_to(&mut self.engines, from, &self.options, &mut |batch| {
            let (first, count) = (batch.first, batch.probabilities.len());
            parts.push(&left[first..first + count], batch)?;
            bar.set_position((before + first + count) as u64);
            let failed = parts.failed();
            if failed > most_failures {
                return Err(io::Error::other(format!(
                    "{failed} samples failed, more than --max-errors {most_failures}"
                )));
            }
            Ok(())
        });
        // Whatever happened, what was scored is kept.
        let kept = parts.flush();
        bar.finish_and_clear();
        ended?;
        kept?;
        let seconds = start.elapsed().as_secs_f64();
        let (count, failed) = (parts.done() - before, parts.failed());
        ui.note(&summary(count, failed, seconds));
        Ok(seconds)
    }

    /// The sessions.
    pub fn engines(&mut self) -> &mut [Box<dyn Engine>] {
        &mut self.engines
    }

    /// The sessions, for other work.
    #[must_use]
    pub fn into_engines(self) -> Vec<Box<dyn Engine>> {
        self.engines
    }

    /// How the pipeline around them works.
    #[must_use]
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// What runs the models, where and how.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Scores samples, with a progress bar, and notes how fast that was.
    ///
    /// # Errors
    ///
    /// The engine fails; a sample that cannot be read is no error but among the table's failures.
    pub fn score(&mut self, samples: &[Sample], ui: &Ui) -> anyhow::Result<ScoreTable> {
        score_with(&mut self.engines, samples, &self.options, ui)
    }
}

/// Scores samples with any engines, with a progress bar, and notes how fast that was.
///
/// # Errors
///
/// An engine fails; a sample that cannot be read is no error but among the table's failures.
pub fn score_with(
    engines: &mut [Box<dyn Engine>],
    samples: &[Sample],
    options: &PipelineOptions,
    ui: &Ui,
) -> anyhow::Result<ScoreTable> {
    let bar = ui.progress(samples.len() as u64, "scoring");
    let start = Instant::now();
    let done = |count: usize| bar.set_position(count as u64);
    let table = score(engines, samples, options, &done);
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let table = table?;
    ui.note(&summary(table.ids.len(), table.failures.len(), seconds));
    Ok(table)
}

fn summary(samples: usize, failed: usize, seconds: f64) -> String {
    let rate = samples as f64 / seconds.max(1e-9);
    format!("{samples} samples, {failed} failed, {seconds:.1} s, {rate:.1} samples/s")
}

/// Opens the model that `flag` names, for scoring.
///
/// # Errors
///
/// It is not a file that `rgby export` wrote; a run or a checkpoint must be exported first.
pub fn open_model(flag: &str, path: &Path) -> anyhow::Result<ModelFile> {
    if path.is_dir() || path.extension().is_some_and(|e| e == "safetensors") {
        let path = path.display();
        bail!(
            "{flag} {path}: is not an ONNX file; if it is a run or a checkpoint, export it first: \
             `rgby export --from {path} --out model.onnx`"
        );
    }
    Ok(ModelFile::open(path)?)
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
