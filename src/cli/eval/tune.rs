//! Thresholds from the labels at hand.

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::EvalArgs;
use crate::data::{LabelTable, read_labels, stratify};
use crate::metrics::{CrossFit, Labelled, Tuning};

/// How thresholds are tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TuneMethod {
    /// One threshold per class, for its best F1.
    F1,
    /// Predict each class as often as it occurs in the labels of --ratios.
    Ratio,
    /// One threshold for all classes, for the best macro-F1.
    Global,
}

impl TuneMethod {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F1 => "f1",
            Self::Ratio => "ratio",
            Self::Global => "global",
        }
    }
}

impl EvalArgs {
    /// The labels of `--ratios`, read before any model runs.
    pub(super) fn read_ratios(&self) -> anyhow::Result<Option<LabelTable>> {
        let read = |path| read_labels(path, usize::from(u16::MAX)).context("--ratios");
        self.ratios.as_deref().map(read).transpose()
    }

    /// Tunes and cross-fits, if asked to. `decided` are the probabilities that are decided by,
    /// `targets` the classes of each sample.
    pub(super) fn tune(
        &self,
        decided: &Labelled,
        targets: &[Vec<u16>],
        ratios: Option<&LabelTable>,
    ) -> anyhow::Result<Option<CrossFit>> {
        let Some(method) = self.tune_thresholds else {
            return Ok(None);
        };
        let samples = targets.len();
        ensure!(
            samples > 1,
            "--tune-thresholds needs more than one sample, since each is judged by thresholds that \
             it had no part in; label more samples"
        );
        let tuning = match (method, ratios) {
            (TuneMethod::Ratio, Some(table)) => Tuning::Ratio(shares(table, decided.classes())?),
            (TuneMethod::Global, _) => Tuning::Global,
            _ => Tuning::F1,
        };
        let count = usize::from(self.folds).min(samples);
        let folds = stratify(targets, decided.classes(), count, self.seed);
        Ok(Some(CrossFit::new(decided, &tuning, &folds)))
    }
}

/// The share of the samples that has each class.
fn shares(table: &LabelTable, classes: usize) -> anyhow::Result<Vec<f64>> {
    let mut counts = vec![0_u32; classes];
    for &class in table.targets.iter().flatten() {
        let count = counts.get_mut(usize::from(class)).with_context(|| {
            format!(
                "--ratios: has a class {class}; classes are 0 to {}",
                classes - 1
            )
        })?;
        *count += 1;
    }
    let samples = table.ids.len() as f64;
    Ok(counts
        .iter()
        .map(|&count| f64::from(count) / samples)
        .collect())
}
