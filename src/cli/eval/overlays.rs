//! Where the model looked, for the samples at the top of the report.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::super::Ui;
use super::Judgement;
use crate::imaging::{DecodeLimits, Preprocessor, Sample};
use crate::metrics::cross_entropy;
use crate::report::pick;
use crate::score::{Engine, Occlusion};

/// Cells of a side: as many as on the server's page.
const GRID: usize = 8;
/// Samples of each section that are explained; each costs as much as scoring `GRID`² samples.
const SAMPLES: usize = 4;
/// A slow model is not asked any longer than that.
const TIME: Duration = Duration::from_secs(30);

/// A model that has judged and can be asked again.
pub(super) struct Runner {
    pub engines: Vec<Box<dyn Engine>>,
    /// Images in memory at a time, and whether the engine wants so many each time.
    pub batch: usize,
    pub whole_batches: bool,
}

/// The probabilities with each cell of the grid hidden, `[cells, classes]`, by sample.
pub(super) type Hidden = HashMap<usize, Vec<f32>>;

/// What a class's probability owes to each cell.
pub(super) struct Evidence {
    /// How much each cell speaks for what the model said, row by row of a square grid.
    pub cells: Vec<f32>,
    pub class: usize,
    /// Whether it is what speaks for the class, or what speaks against it.
    pub speaks_for: bool,
}

impl Judgement {
    /// Asks the model about the samples that the report begins its sections with.
    pub(super) fn look(&mut self, ui: &Ui) -> anyhow::Result<()> {
        let Some(mut runner) = self.runner.take() else {
            return Ok(());
        };
        let [wrong, uncertain] = pick(&self.judged.data()?, SAMPLES);
        // Should time run out, both sections have some.
        let mut wanted: Vec<usize> = Vec::new();
        for (sample, _) in wrong
            .iter()
            .zip(&uncertain)
            .flat_map(|(wrong, uncertain)| [wrong, uncertain])
        {
            if !wanted.contains(sample) {
                wanted.push(*sample);
            }
        }
        let bar = ui.progress(wanted.len() as u64, "where it looked");
        let (ids, pictures) = (&self.judged.ids, &self.pictures);
        let hidden = runner.ask(&wanted, |sample| {
            bar.inc(1);
            pictures.iter().find(|files| files.id == ids[sample])
        });
        bar.finish_and_clear();
        self.hidden = hidden?;
        let missing = wanted.len() - self.hidden.len();
        if missing > 0 {
            ui.note(&format!(
                "where the model looked is shown for {} of {} samples: it is asked for {} s only",
                self.hidden.len(),
                wanted.len(),
                TIME.as_secs()
            ));
        }
        Ok(())
    }

    /// What speaks for or against the class that the model got most wrong about a sample: a false
    /// alarm's evidence, or what hides a class that is there. None if it was not asked.
    pub(super) fn evidence_of_error(&self, sample: usize) -> Option<Evidence> {
        let of = |(p, truth): &(f32, bool)| cross_entropy(*p, *truth);
        self.evidence(sample, &of, |truth| !truth)
    }

    /// What speaks for the class that the model is least sure about.
    pub(super) fn evidence_of_doubt(&self, sample: usize) -> Option<Evidence> {
        let of = |(p, _): &(f32, bool)| -f64::from((p - 0.5).abs());
        self.evidence(sample, &of, |_| true)
    }

    fn evidence(
        &self,
        sample: usize,
        measure: &dyn Fn(&(f32, bool)) -> f64,
        speaks_for: fn(bool) -> bool,
    ) -> Option<Evidence> {
        let hidden = self.hidden.get(&sample)?;
        let data = self.judged.data().ok()?;
        let classes = data.row(sample).enumerate();
        // Of equal ones the first.
        let (class, (whole, truth)) =
            classes.min_by(|(_, a), (_, b)| measure(b).total_cmp(&measure(a)))?;
        let speaks_for = speaks_for(truth);
        let sign = if speaks_for { 1.0 } else { -1.0 };
        let rows = hidden.chunks(self.judged.classes);
        Some(Evidence {
            cells: rows.map(|row| sign * (whole - row[class])).collect(),
            class,
            speaks_for,
        })
    }
}

impl Runner {
    /// The answers about samples whose files `find` knows; it is called once for each.
    fn ask<'a>(
        &mut self,
        samples: &[usize],
        find: impl Fn(usize) -> Option<&'a Sample> + Sync,
    ) -> anyhow::Result<Hidden> {
        let occlusion = Occlusion {
            grid: GRID,
            batch: self.batch,
            whole_batches: self.whole_batches,
            deadline: Instant::now() + TIME,
        };
        let left = Mutex::new(samples.iter());
        let next = || {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            left.next().copied()
        };
        let work = |engine: &mut dyn Engine| -> anyhow::Result<Hidden> {
            let preparer = Preprocessor::new(engine.spec().preprocess.clone());
            let mut image = vec![0.0; preparer.preprocess().input_len()];
            let mut found = Hidden::new();
            while let Some(sample) = next() {
                let Some(files) = find(sample) else { continue };
                preparer.load(files, &DecodeLimits::default(), &mut image)?;
                match occlusion.probabilities(engine, &image)? {
                    Some(hidden) => found.insert(sample, hidden),
                    None => break,
                };
            }
            Ok(found)
        };
        let work = &work;
        thread::scope(|scope| {
            let engines = self.engines.iter_mut();
            let asking: Vec<_> = engines
                .map(|engine| scope.spawn(move || work(&mut **engine)))
                .collect();
            let mut all = Hidden::new();
            for asked in asking {
                let found = asked.join().map_err(|_| anyhow!("the engine panicked"))?;
                all.extend(found?);
            }
            Ok(all)
        })
    }
}
