//! Operating points: decisions at several sets of thresholds, with their metrics.

use super::EvalError;
use super::samples::EvaluatedSamples;
use crate::metrics::{Bootstrap, Decisions, evaluate_decisions, intervals};
use crate::report::OperatingPoint;

/// Thresholds of an operating point.
pub(super) struct ThresholdSet {
    /// For example `at 0.5`.
    pub name: String,
    /// One per class.
    pub thresholds: Vec<f32>,
    /// Cross-fitted decisions; `None` decides by `thresholds`.
    pub decisions: Option<Decisions>,
}

impl ThresholdSet {
    pub fn new(name: impl Into<String>, thresholds: &[f32]) -> Self {
        Self {
            name: name.into(),
            thresholds: thresholds.to_vec(),
            decisions: None,
        }
    }
}

/// Evaluates all sets of thresholds. Their intervals share the bootstrap draws.
pub(super) fn operating_points(
    sets: Vec<ThresholdSet>,
    samples: &EvaluatedSamples,
    bootstrap: &Bootstrap,
) -> Result<Vec<OperatingPoint>, EvalError> {
    let (data, decision_data) = (samples.data()?, samples.decision_data()?);
    let evaluate = |set: ThresholdSet| {
        let decisions = set
            .decisions
            .unwrap_or_else(|| Decisions::at(&decision_data, &set.thresholds));
        OperatingPoint {
            name: set.name,
            evaluation: evaluate_decisions(&data, &decisions, &set.thresholds),
            decisions,
            intervals: None,
        }
    };
    let mut points: Vec<OperatingPoint> = sets.into_iter().map(evaluate).collect();
    let decisions: Vec<&Decisions> = points.iter().map(|point| &point.decisions).collect();
    let computed = intervals(&decisions, bootstrap).unwrap_or_default();
    for (point, intervals) in points.iter_mut().zip(computed) {
        point.intervals = Some(intervals);
    }
    Ok(points)
}
