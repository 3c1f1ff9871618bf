//! The run's report: `report.html` and `plots/`.

use super::super::error::without_hint;
use super::super::{RunEnd, TrainError};
use super::TrainingRun;
use crate::report::{RunPage, RunStatus};

impl TrainingRun<'_> {
    /// Writes the report of all epochs so far.
    pub(super) fn write_page(&self, progress: RunStatus) -> Result<(), TrainError> {
        let job = &self.job;
        let out = std::path::absolute(&job.out).unwrap_or_else(|_| job.out.clone());
        let page = RunPage {
            name: out.file_name().map_or_else(
                || out.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
            progress,
            epochs: job.config.train.epochs,
            rows: &self.rows,
            timing: &self.timing,
            stages: self.stages(),
            remarks: self.remarks(),
            about: self.about(),
            config: toml::to_string_pretty(&job.config).unwrap_or_default(),
        };
        Ok(page.write(&job.out)?)
    }

    /// Returns the status of an ended run for its report.
    pub(super) fn status(result: &Result<RunEnd, TrainError>) -> RunStatus {
        match result {
            Ok(RunEnd::Finished) => RunStatus::Finished,
            Ok(RunEnd::Stopped) => RunStatus::Stopped,
            Err(error) => RunStatus::Failed(without_hint(error)),
        }
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.validation.is_empty() {
            remarks.push(
                "There is no validation split: loss and F1 are computed on the training samples \
                 and say little about other samples."
                    .into(),
            );
        }
        if let Some(steps) = self.job.config.train.validation_steps {
            remarks.push(format!(
                "Validation is limited to {steps} batches (train.validation_steps)."
            ));
        }
        remarks
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        let (job, provenance) = (&self.job, &self.provenance);
        let origin = &job.origin;
        let model = &job.config.model;
        let network = format!(
            "{}, {} × {1} pixels, {}; {} classes",
            model.arch.name(),
            model.input_size,
            model.channels.join(", "),
            model.classes.len()
        );
        let samples = format!(
            "{}: {} training, {} validation",
            job.dataset.len(),
            self.training.samples.len(),
            self.validation.len()
        );
        let program = format!(
            "rgby {} on {} {}",
            origin.rgby_version,
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        let from = origin.from.clone().unwrap_or("random weights".into());
        let steps = format!("{}, including earlier runs", self.progress.steps);
        let about = [
            ("started from", Some(from)),
            ("transferred head", origin.head.clone()),
            ("pretrained file", provenance.source.clone()),
            (
                "SHA-256 of the pretrained file",
                provenance.source_sha256.clone(),
            ),
            ("training steps", Some(steps)),
            ("network", Some(network)),
            ("images", Some(origin.images.clone())),
            ("labels", Some(origin.labels.clone())),
            ("samples", Some(samples)),
            ("SHA-256 of the data", Some(self.progress.data.clone())),
            ("device", Some(origin.device.clone())),
            ("program", Some(program)),
        ];
        let known = |(name, value): (_, Option<String>)| Some((name, value?));
        about.into_iter().filter_map(known).collect()
    }
}
