//! The checkpoints that a run writes.

use std::time::Instant;

use super::super::run_directory::remove_others;
use super::super::{Checkpoint, CheckpointContents, TrainError};
use super::TrainingRun;
use crate::model_metadata::ModelSpec;
use crate::report::EpochRow;

impl TrainingRun<'_> {
    /// Saves the epoch if it is among the `train.keep_top` best, and removes the one that it
    /// replaces.
    pub(super) fn keep_top(&mut self, epoch: u32) -> Result<(), TrainError> {
        let count = self.job.config.train.keep_top;
        let mut ranked: Vec<&EpochRow> = self.rows.iter().collect();
        let loss = |row: &EpochRow| row.valid_loss.unwrap_or(f64::INFINITY);
        ranked.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        let name = |row: &&EpochRow| format!("epoch-{}", row.epoch);
        let best: Vec<String> = ranked.iter().take(count).map(name).collect();
        if best.contains(&format!("epoch-{epoch}")) {
            self.save(&format!("epoch-{epoch}"))?;
        }
        remove_others(&self.job.out.join("checkpoints"), "epoch-", &best)
    }

    /// Writes a checkpoint after reading all pending losses.
    ///
    /// # Errors
    ///
    /// [`TrainError::Diverged`] if a pending loss is not finite; nothing is written then.
    pub(super) fn save(&mut self, name: &str) -> Result<(), TrainError> {
        self.read_losses()?;
        let config = &self.job.config;
        self.provenance.steps = self.progress.steps;
        let (arch, classes) = (config.model.arch.name(), config.model.classes.clone());
        let mut spec = ModelSpec::new(arch, classes, self.source.preprocess().clone());
        spec.provenance = self.provenance.clone();
        let mut checkpoint = Checkpoint::new(config.model.clone(), spec);
        checkpoint.config = Some(config.clone());
        checkpoint.progress = Some(self.progress.clone());
        let dir = self.job.out.join("checkpoints").join(name);
        let saved = CheckpointContents {
            classifier: self.trainer.classifier(),
            ema: self.trainer.ema(),
            optimizer: Some(self.trainer.optimizer()),
        };
        checkpoint.save(&dir, saved).map_err(TrainError::Save)?;
        self.last_save = Instant::now();
        Ok(())
    }
}
