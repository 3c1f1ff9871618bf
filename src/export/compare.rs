//! Compares a model of lower precision with its float32 model: outputs and speed.

use std::time::Instant;

use super::{CalibrationInputs, ExportError, threads};
use crate::data::LabelTable;
use crate::metrics::{Labelled, evaluate};
use crate::score::{Engine, Failure, ModelFile, OrtEngine, Runtime};

/// A changed decision counts as lost if its probability moved by more than this.
const NOTABLE: f32 = 0.1;

/// The changes from the float32 model to the reduced model.
#[derive(Debug, Clone)]
pub struct PrecisionComparison {
    /// Number of compared images.
    pub images: usize,
    /// Largest difference of a probability.
    pub largest: f32,
    /// Mean difference of a probability.
    pub mean: f64,
    /// Fraction of changed decisions, by the thresholds of the model.
    pub flipped: f64,
    /// Fraction of changed decisions whose probability moved by more than 0.1.
    pub lost: f64,
    /// Images per second of the float32 and the reduced model, each in its fastest batch.
    pub speed: [f64; 2],
    /// Macro-F1 of both at the thresholds of the model, if there are labels.
    pub macro_f1: Option<[f64; 2]>,
    /// Images that could not be read.
    pub failures: Vec<Failure>,
}

/// Runs both models on the same images, alternating after each batch so that other load on the
/// machine affects both.
///
/// # Errors
///
/// An engine fails, an output is not a probability, no image can be read, or no image has a label.
pub(super) fn compare(
    models: [&ModelFile; 2],
    inputs: &CalibrationInputs,
    labels: Option<&LabelTable>,
    runtime: Runtime,
) -> Result<PrecisionComparison, ExportError> {
    let load = |model| OrtEngine::load(runtime, model, threads());
    let mut engines = [load(models[0])?, load(models[1])?];
    let mut rows = Vec::new();
    let mut outputs = [Vec::new(), Vec::new()];
    let mut speed = [0.0_f64; 2];
    let failures = inputs.for_each(|batch| {
        let count = batch.rows.len();
        if rows.is_empty() {
            // Warm-up: the first run of a session allocates its memory.
            for engine in &mut engines {
                engine.run(&batch.images, count)?;
            }
        }
        rows.extend(batch.rows);
        for (engine, (outputs, speed)) in engines.iter_mut().zip(outputs.iter_mut().zip(&mut speed))
        {
            let start = Instant::now();
            outputs.extend(engine.run(&batch.images, count)?);
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
            let labelled: Vec<usize> = (0..rows.len())
                .filter(|&at| targets[rows[at]].is_some())
                .collect();
            let targets = labelled
                .iter()
                .filter_map(|&at| targets[rows[at]])
                .collect::<Vec<_>>();
            let [full, reduced] = &outputs;
            let f1 = |outputs: &[f32]| macro_f1(outputs, &labelled, &targets, &spec.thresholds);
            Some([f1(full)?, f1(reduced)?])
        }
    };
    Ok(PrecisionComparison {
        images: rows.len(),
        speed,
        macro_f1,
        failures,
        ..PrecisionComparison::new(&outputs, &spec.thresholds)
    })
}

impl PrecisionComparison {
    /// Compares two lists of probabilities `[N, K]`.
    fn new([full, reduced]: &[Vec<f32>; 2], thresholds: &[f32]) -> Self {
        let (mut largest, mut sum, mut flipped, mut lost) = (0.0_f32, 0.0_f64, 0, 0);
        let pairs = full.iter().zip(reduced).zip(thresholds.iter().cycle());
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

/// Returns the macro-F1 of the rows `labelled`, whose classes are `targets`.
fn macro_f1(
    outputs: &[f32],
    labelled: &[usize],
    targets: &[&[u16]],
    thresholds: &[f32],
) -> Result<f64, ExportError> {
    let classes = thresholds.len();
    if labelled.is_empty() {
        return Err(ExportError::Unlabelled);
    }
    let rows = labelled
        .iter()
        .flat_map(|&at| &outputs[at * classes..][..classes]);
    let probabilities: Vec<f32> = rows.copied().collect();
    let mut truth = vec![0.0; probabilities.len()];
    for (row, target) in truth.chunks_mut(classes).zip(targets) {
        for &class in *target {
            row[usize::from(class)] = 1.0;
        }
    }
    let data = Labelled::new(&probabilities, &truth, classes).map_err(ExportError::Labels)?;
    Ok(evaluate(&data, thresholds).macro_f1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_changes_by_the_threshold_of_each_class() {
        // Two images, two classes with thresholds 0.5 and 0.2.
        let full = vec![0.46, 0.1, 0.9, 0.3];
        let other = vec![0.54, 0.15, 0.3, 0.25];
        let change = PrecisionComparison::new(&[full, other], &[0.5, 0.2]);
        assert!((change.largest - 0.6).abs() < 1e-6);
        assert!((change.mean - (0.08 + 0.05 + 0.6 + 0.05) / 4.0).abs() < 1e-6);
        assert!((change.flipped - 0.5).abs() < 1e-9);
        // 0.9 → 0.3 is lost; 0.46 → 0.54 moves too little.
        assert!((change.lost - 0.25).abs() < 1e-9);
    }

    #[test]
    fn computes_f1_on_the_labelled_rows() {
        let outputs = [0.9, 0.1, 0.5, 0.5, 0.2, 0.8];
        let targets: [&[u16]; 2] = [&[0], &[0, 1]];
        // Class 0: right once, missed once: 2/3. Class 1: right once: 1.
        let f1 = macro_f1(&outputs, &[0, 2], &targets, &[0.5, 0.5]).unwrap();
        assert!((f1 - 5.0 / 6.0).abs() < 1e-9, "{f1}");
        let none = macro_f1(&outputs, &[], &[], &[0.5, 0.5]);
        assert!(matches!(none, Err(ExportError::Unlabelled)));
    }
}
