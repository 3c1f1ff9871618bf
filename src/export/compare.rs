//! A model of lower precision beside the one that it was made of: answers, speed, size.

use std::time::Instant;

use super::{ExportError, Inputs, threads};
use crate::data::LabelTable;
use crate::metrics::{Labelled, evaluate};
use crate::score::{Engine, Failure, ModelFile, OrtEngine, Runtime};

/// A decision is only lost if its probability moved by more than this.
const NOTABLE: f32 = 0.1;

/// What changed from the float32 model to the other.
#[derive(Debug, Clone)]
pub struct PrecisionComparison {
    /// Images that both answered for.
    pub images: usize,
    /// Largest difference of a probability.
    pub largest: f32,
    /// Mean difference of a probability.
    pub mean: f64,
    /// Share of decisions, by the model's thresholds, that are others.
    pub flipped: f64,
    /// Share of decisions that are others and whose probability moved by more than 0.1.
    pub lost: f64,
    /// Images per second of the float32 model and of the other, each by its best batch.
    pub speed: [f64; 2],
    /// Macro-F1 of both at the model's thresholds, if there are labels.
    pub macro_f1: Option<[f64; 2]>,
    /// Images that could not be read.
    pub failures: Vec<Failure>,
}

/// Runs both models on the same images, batch by batch in turn, so that what else the machine does
/// slows both down.
///
/// # Errors
///
/// An engine fails, an answer is no probability, no image can be read, or no image has a label.
pub(super) fn compare(
    models: [&ModelFile; 2],
    inputs: &Inputs,
    labels: Option<&LabelTable>,
    runtime: Runtime,
) -> Result<PrecisionComparison, ExportError> {
    let load = |model| OrtEngine::load(runtime, model, threads());
    let mut engines = [load(models[0])?, load(models[1])?];
    let mut rows = Vec::new();
    let mut answers = [Vec::new(), Vec::new()];
    let mut speed = [0.0_f64; 2];
    let failures = inputs.for_each(|batch| {
        let count = batch.rows.len();
        if rows.is_empty() {
            // The first run of a session sets up its memory.
            for engine in &mut engines {
                engine.run(&batch.images, count)?;
            }
        }
        rows.extend(batch.rows);
        for (engine, (answers, speed)) in engines.iter_mut().zip(answers.iter_mut().zip(&mut speed))
        {
            let start = Instant::now();
            answers.extend(engine.run(&batch.images, count)?);
            let rate = count as f64 / start.elapsed().as_secs_f64().max(1e-9);
            *speed = speed.max(rate);
        }
        Ok(())
    })?;
    let spec = models[0].spec();
    let macro_f1 = match labels {
        None => None,
        Some(labels) => {
            let targets = inputs.targets(labels);
            let kept: Vec<usize> = (0..rows.len())
                .filter(|&at| targets[rows[at]].is_some())
                .collect();
            let targets = kept
                .iter()
                .filter_map(|&at| targets[rows[at]])
                .collect::<Vec<_>>();
            let [full, other] = &answers;
            let judge = |answers: &[f32]| macro_f1(answers, &kept, &targets, &spec.thresholds);
            Some([judge(full)?, judge(other)?])
        }
    };
    Ok(PrecisionComparison {
        images: rows.len(),
        speed,
        macro_f1,
        failures,
        ..PrecisionComparison::of(&answers, &spec.thresholds)
    })
}

impl PrecisionComparison {
    /// What changed from one list of probabilities to the other, row by row.
    fn of([full, other]: &[Vec<f32>; 2], thresholds: &[f32]) -> Self {
        let (mut largest, mut sum, mut flipped, mut lost) = (0.0_f32, 0.0_f64, 0, 0);
        let pairs = full.iter().zip(other).zip(thresholds.iter().cycle());
        for ((a, b), threshold) in pairs {
            let gap = (a - b).abs();
            largest = largest.max(gap);
            sum += f64::from(gap);
            if (a >= threshold) != (b >= threshold) {
                flipped += 1;
                lost += usize::from(gap > NOTABLE);
            }
        }
        let count = full.len().max(1) as f64;
        Self {
            images: 0,
            largest,
            mean: sum / count,
            flipped: flipped as f64 / count,
            lost: lost as f64 / count,
            speed: [0.0; 2],
            macro_f1: None,
            failures: Vec::new(),
        }
    }
}

/// Macro-F1 of the rows `kept`, whose classes are `targets`.
fn macro_f1(
    answers: &[f32],
    kept: &[usize],
    targets: &[&[u16]],
    thresholds: &[f32],
) -> Result<f64, ExportError> {
    let classes = thresholds.len();
    if kept.is_empty() {
        return Err(ExportError::Unlabelled);
    }
    let rows = kept
        .iter()
        .flat_map(|&at| &answers[at * classes..][..classes]);
    let probabilities: Vec<f32> = rows.copied().collect();
    let mut truth = vec![0.0; probabilities.len()];
    for (row, target) in truth.chunks_mut(classes).zip(targets) {
        for &class in *target {
            row[usize::from(class)] = 1.0;
        }
    }
    let data = Labelled::new(&probabilities, &truth, classes).map_err(ExportError::Judgement)?;
    Ok(evaluate(&data, thresholds).macro_f1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_each_class_threshold() {
        // Two images, two classes with thresholds 0.5 and 0.2.
        let full = vec![0.46, 0.1, 0.9, 0.3];
        let other = vec![0.54, 0.15, 0.3, 0.25];
        let change = PrecisionComparison::of(&[full, other], &[0.5, 0.2]);
        assert!((change.largest - 0.6).abs() < 1e-6);
        assert!((change.mean - (0.08 + 0.05 + 0.6 + 0.05) / 4.0).abs() < 1e-6);
        assert!((change.flipped - 0.5).abs() < 1e-9);
        // 0.9 → 0.3 is a loss; 0.46 → 0.54 was open before.
        assert!((change.lost - 0.25).abs() < 1e-9);
    }

    #[test]
    fn f1_is_that_of_the_labelled_rows() {
        let answers = [0.9, 0.1, 0.5, 0.5, 0.2, 0.8];
        let targets: [&[u16]; 2] = [&[0], &[0, 1]];
        // Class 0: right once, missed once: 2/3. Class 1: right once: 1.
        let f1 = macro_f1(&answers, &[0, 2], &targets, &[0.5, 0.5]).unwrap();
        assert!((f1 - 5.0 / 6.0).abs() < 1e-9, "{f1}");
        let none = macro_f1(&answers, &[], &[], &[0.5, 0.5]);
        assert!(matches!(none, Err(ExportError::Unlabelled)));
    }
}
