//! The stages of a run: frozen parameters and the feature cache.

use super::super::features::{RunSamples, StageSpan, features, remove_features};
use super::super::{BatchContent, TrainError, TrainStage, TrainingObserver};
use super::TrainingRun;

impl TrainingRun<'_> {
    /// Freezes the parameters of the current stage. The first epoch of a stage starts with a new
    /// optimizer.
    pub(super) fn enter_stage(
        &mut self,
        observer: &dyn TrainingObserver,
    ) -> Result<(), TrainError> {
        let config = &self.job.config;
        if config.train.stages.is_empty() {
            return Ok(());
        }
        let epoch = self.progress.epoch;
        let (first, stage) = config.train.stage(epoch);
        self.trainer.freeze(&stage.freeze)?;
        if first == epoch && self.progress.step_in_epoch == 0 {
            self.trainer.set_optimizer(config.optimizer.init());
            observer.note(&format!(
                "epochs {} to {}: {}",
                first + 1,
                first + stage.epochs,
                self.describe(&stage)
            ));
        }
        Ok(())
    }

    /// Switches to cached features for the current stage if that gives the same result with less
    /// work.
    pub(super) fn use_features(
        &mut self,
        observer: &dyn TrainingObserver,
    ) -> Result<(), TrainError> {
        let (first, stage) = self.job.config.train.stage(self.progress.epoch);
        if self.features_stage == Some(first) {
            return Ok(());
        }
        let samples = RunSamples {
            training: &self.training.samples,
            validation: &self.validation,
            source: &self.source,
        };
        let span = StageSpan {
            first,
            epochs: stage.epochs as usize,
            steps: self.plan().len(),
        };
        self.features = features(
            &self.job,
            self.trainer.classifier(),
            &samples,
            &span,
            observer,
        )?;
        self.features_stage = Some(first);
        self.trainer.set_input(match self.features {
            Some(_) => BatchContent::Features,
            None => BatchContent::Images,
        });
        if self.features.is_none() {
            remove_features(&self.job)?;
        }
        Ok(())
    }

    /// Describes a stage.
    fn describe(&self, stage: &TrainStage) -> String {
        let frozen = match stage.freeze.as_slice() {
            [] => "nothing frozen".to_owned(),
            frozen => format!("{} frozen", frozen.join(", ")),
        };
        let lr = stage.lr.unwrap_or(self.job.config.optimizer.lr());
        format!("{frozen}, learning rate {lr}")
    }

    /// Returns the first epoch of each stage, from 1, and its description; empty for a run without
    /// stages.
    pub(super) fn stages(&self) -> Vec<(u32, String)> {
        let train = &self.job.config.train;
        let mut stages = Vec::new();
        let mut next = 0;
        while !train.stages.is_empty() && next < train.epochs {
            let (first, stage) = train.stage(next);
            stages.push((first + 1, self.describe(&stage)));
            next = first + stage.epochs.max(1);
        }
        stages
    }
}
