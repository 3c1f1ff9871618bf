//! Several models, and several views of each image: flags and what they mean together.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::super::scorer::{Threshold, open_model};
use crate::score::{Ensemble, ModelFile, TtaCombination};

/// Ensemble and test-time augmentation options.
#[derive(Debug, Clone, Args)]
pub struct VoteArgs {
    /// Further models, whose probabilities are averaged with those of --model
    ///
    /// All models must have the same classes in the same order.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub ensemble: Vec<PathBuf>,
    /// Test-time augmentation: 1 for none, 8 for all rotations and flips
    #[arg(long, value_name = "1|8", default_value_t = 1, value_parser = views)]
    pub tta: u8,
    /// How to combine the probabilities of the augmented images [default: mean]
    ///
    /// They are combined per model, before the models of an ensemble are averaged.
    #[arg(long, value_name = "HOW", value_enum)]
    pub tta_combine: Option<TtaCombination>,
}

fn views(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "8" => Ok(8),
        _ => Err("use 1 for the image as it is, or 8 for its turns and mirrorings".into()),
    }
}

impl VoteArgs {
    /// How a model's probabilities for the views become one.
    #[must_use]
    pub fn combine(&self) -> TtaCombination {
        self.tta_combine.unwrap_or_default()
    }

    /// Opens the models beside `first`.
    ///
    /// # Errors
    ///
    /// A file is no model, the models do not fit together, or flags contradict each other.
    pub fn ensemble(&self, first: ModelFile) -> anyhow::Result<Ensemble> {
        ensure!(
            self.tta > 1 || self.tta_combine.is_none(),
            "--tta-combine says how several views become one; add --tta 8 or leave it out"
        );
        let others = self.ensemble.iter();
        let others = others.map(|path| open_model("--ensemble", path));
        let ensemble = Ensemble::new(first, others.collect::<anyhow::Result<_>>()?)?;
        Ok(if self.tta > 1 {
            ensemble.with_views(self.combine())
        } else {
            ensemble
        })
    }

    /// What to say of it, unless it is one model and the image as it is.
    pub(super) fn note(&self, threshold: Threshold) -> Option<String> {
        let mut said = Vec::new();
        if !self.ensemble.is_empty() {
            let models = 1 + self.ensemble.len();
            said.push(format!("the mean of {models} models' probabilities"));
            if threshold == Threshold::Tuned {
                said.push("thresholds are the mean of theirs".into());
            }
        }
        if self.tta > 1 {
            let (views, combine) = (self.tta, self.combine());
            said.push(format!("the {combine} of {views} views of each image"));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}
