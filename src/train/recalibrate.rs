//! Recalibrates BatchNorm statistics before a run starts.

use std::sync::Arc;

use burn::module::Module;

use super::step::image_tensor;
use super::{TrainError, TrainJob, TrainingObserver};
use crate::data::{BatchLoader, LoadPlan, SampleSource};
use crate::model::{Classifier, Recalibration};

/// Default number of samples for a starting point with folded BatchNorm.
pub const RECALIBRATE_DEFAULT: usize = 256;

/// Recomputes the BatchNorm statistics of `classifier` on `samples`.
///
/// Its outputs in inference mode do not change; see [`Recalibration`].
pub(super) fn recalibrate(
    job: &TrainJob,
    classifier: Classifier,
    samples: &[usize],
    source: &Arc<SampleSource>,
    observer: &dyn TrainingObserver,
) -> Result<Classifier, TrainError> {
    let train = &job.config.train;
    observer.note(&format!(
        "measuring BatchNorm statistics on {} samples",
        samples.len()
    ));
    let plan = samples.chunks(train.batch_size).map(<[usize]>::to_vec);
    let plan = LoadPlan::new(plan.collect());
    let network = classifier.valid();
    let mut recalibration = Recalibration::default();
    let shape = job.config.model.image_shape();
    for batch in BatchLoader::batches(source, plan, job.config.data.workers) {
        recalibration.add(&network, image_tensor(batch?, shape, &job.device));
    }
    let classifier = recalibration
        .apply(classifier)
        .map_err(|error| TrainError::Data(format!("recalibration: {error}")))?;
    observer.note(&format!(
        "recalibrated {} BatchNorm layers with the statistics of these images; the network's \
         outputs do not change",
        recalibration.layers()
    ));
    Ok(classifier)
}
