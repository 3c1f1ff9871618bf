//! Occlusion maps of the samples at the top of the report: hiding a cell of the image changes the
//! probability of a class.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::EvalError;
use super::predictions::LoadedModel;
use super::samples::EvaluatedSamples;
use crate::imaging::{DecodeLimits, Preprocessor, Sample};
use crate::metrics::cross_entropy;
use crate::report::extreme_samples;
use crate::score::{Engine, Occlusion, ScoreObserver};

/// Cells per side, as on the page of the server.
const GRID: usize = 8;
/// Samples with a map in each section. Each costs as much as scoring `GRID`² samples.
const SAMPLES: usize = 4;
/// Time limit for all maps, for slow models.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Probabilities with each cell hidden, `[cells, classes]`, by index of the sample.
#[derive(Default)]
pub(super) struct OcclusionMaps(HashMap<usize, Vec<f32>>);

/// The change of one class's probability by cell.
pub(super) struct ClassEvidence {
    /// Change of the probability when the cell is hidden, row by row of a square grid. Positive if
    /// the cell is evidence in the direction of `supports`.
    pub cells: Vec<f32>,
    pub class: usize,
    /// Whether the cells show evidence for the class, or evidence against it.
    pub supports: bool,
}

impl OcclusionMaps {
    /// Computes the maps of the samples at the top of both sections of the report, until the time
    /// limit. `images` are the image files of the samples.
    pub fn compute(
        samples: &EvaluatedSamples,
        images: &[Sample],
        model: &mut LoadedModel,
        observer: &dyn ScoreObserver,
    ) -> Result<Self, EvalError> {
        let [wrong, uncertain] = extreme_samples(&samples.data()?, SAMPLES);
        // Alternates, so that both sections have maps if time runs out.
        let pairs = wrong.iter().zip(&uncertain);
        let mut selected: Vec<usize> = Vec::new();
        for (sample, _) in pairs.flat_map(|(wrong, uncertain)| [wrong, uncertain]) {
            if !selected.contains(sample) {
                selected.push(*sample);
            }
        }
        let find = |index: usize| images.iter().find(|image| image.id == samples.ids[index]);
        observer.started(selected.len(), 0);
        let maps = model.occlusion_maps(&selected, find, observer);
        observer.finished();
        let maps = maps?;
        if maps.0.len() < selected.len() {
            observer.note(&format!(
                "occlusion maps for {} of {} samples only: the time limit is {} s",
                maps.0.len(),
                selected.len(),
                TIME_LIMIT.as_secs()
            ));
        }
        Ok(maps)
    }

    /// Returns the evidence on the class with the largest loss: against a class that the sample has,
    /// for one that it does not have. `None` without a map.
    pub fn evidence_of_error(
        &self,
        samples: &EvaluatedSamples,
        sample: usize,
    ) -> Option<ClassEvidence> {
        let loss = |(p, truth): &(f32, bool)| cross_entropy(*p, *truth);
        self.evidence(samples, sample, &loss, |truth| !truth)
    }

    /// Returns the evidence for the class with the least certain probability. `None` without a map.
    pub fn evidence_of_doubt(
        &self,
        samples: &EvaluatedSamples,
        sample: usize,
    ) -> Option<ClassEvidence> {
        let doubt = |(p, _): &(f32, bool)| -f64::from((p - 0.5).abs());
        self.evidence(samples, sample, &doubt, |_| true)
    }

    /// Returns the evidence for or against the class with the highest `measure`.
    fn evidence(
        &self,
        samples: &EvaluatedSamples,
        sample: usize,
        measure: &dyn Fn(&(f32, bool)) -> f64,
        supports: fn(bool) -> bool,
    ) -> Option<ClassEvidence> {
        let hidden = self.0.get(&sample)?;
        let data = samples.data().ok()?;
        // The first of equal classes.
        let (class, (probability, truth)) = data
            .row(sample)
            .enumerate()
            .min_by(|(_, a), (_, b)| measure(b).total_cmp(&measure(a)))?;
        let supports = supports(truth);
        let sign = if supports { 1.0 } else { -1.0 };
        let rows = hidden.chunks(samples.classes);
        Some(ClassEvidence {
            cells: rows.map(|row| sign * (probability - row[class])).collect(),
            class,
            supports,
        })
    }
}

impl LoadedModel {
    /// Computes the maps of `samples`, whose files `find` returns, on all engines in parallel.
    fn occlusion_maps<'a>(
        &mut self,
        samples: &[usize],
        find: impl Fn(usize) -> Option<&'a Sample> + Sync,
        observer: &dyn ScoreObserver,
    ) -> Result<OcclusionMaps, EvalError> {
        let occlusion = Occlusion {
            grid: GRID,
            batch: self.options.batch,
            whole_batches: self.options.whole_batches,
            deadline: Instant::now() + TIME_LIMIT,
        };
        let queue = Mutex::new(samples.iter());
        let next = || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.next().copied()
        };
        let work = |engine: &mut dyn Engine, done: &mpsc::Sender<()>| {
            let preparer = Preprocessor::new(engine.spec().preprocess.clone());
            let mut image = vec![0.0; preparer.preprocess().input_len()];
            let mut maps = HashMap::new();
            while let Some(sample) = next() {
                if let Some(files) = find(sample) {
                    preparer.load(files, &DecodeLimits::default(), &mut image)?;
                    let Some(hidden) = occlusion.probabilities(engine, &image)? else {
                        break;
                    };
                    maps.insert(sample, hidden);
                }
                // The receiver lives until all senders are dropped.
                let _ = done.send(());
            }
            Ok::<_, EvalError>(maps)
        };
        let work = &work;
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let engines = self.engines.iter_mut();
            let workers: Vec<_> = engines
                .map(|engine| {
                    let sender = sender.clone();
                    scope.spawn(move || work(&mut **engine, &sender))
                })
                .collect();
            drop(sender);
            // The observer is not shared between threads.
            receiver
                .iter()
                .enumerate()
                .for_each(|(before, ())| observer.scored(before + 1));
            let mut maps = HashMap::new();
            for worker in workers {
                maps.extend(worker.join().map_err(|_| EvalError::EnginePanicked)??);
            }
            Ok(OcclusionMaps(maps))
        })
    }
}
