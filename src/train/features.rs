//! Feature cache: the features of a frozen backbone are computed once and written to a file, from
//! which the head trains.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use sha2::{Digest, Sha256};

use super::extractor::BurnExtractor;
use super::feature_writer::{FeatureEngine, FeatureWriter};
use super::{FeatureBackend, TrainConfig, TrainError, TrainJob, TrainingObserver};
use crate::data::{AugmentConfig, FeatureForm, Features, SampleSource};
use crate::imaging::DIHEDRAL;
use crate::model::Classifier;

/// The samples of a run by their role in the split.
pub(super) struct RunSamples<'a> {
    pub training: &'a [usize],
    pub validation: &'a [usize],
    pub source: &'a Arc<SampleSource>,
}

/// Position and length of a training stage.
pub(super) struct StageSpan {
    /// First epoch, from 0.
    pub first: u32,
    /// Length in epochs.
    pub epochs: usize,
    /// Steps in an epoch.
    pub steps: usize,
}

/// Number of dihedral variants of each training sample, if no other augmentation is enabled.
fn dihedral_variants(augment: AugmentConfig) -> Option<usize> {
    let dihedral = augment.dihedral;
    let dihedral_only = AugmentConfig {
        dihedral,
        ..AugmentConfig::default()
    };
    (augment == dihedral_only).then_some(if dihedral { DIHEDRAL.into() } else { 1 })
}

/// Returns a sample source that reads cached features. `None` unless only the head trains in this
/// stage, the only augmentation is dihedral, and computing all features once is no more work than
/// the stage itself.
///
/// If the run is stopped meanwhile, no file is written and the result is `None`; the caller must
/// check [`TrainJob::stop`].
pub(super) fn features(
    job: &TrainJob,
    classifier: &Classifier,
    samples: &RunSamples,
    stage: &StageSpan,
    observer: &dyn TrainingObserver,
) -> Result<Option<Arc<SampleSource>>, TrainError> {
    let (Some(cache), Some(variants)) = (&job.features, dihedral_variants(job.config.data.augment))
    else {
        return Ok(None);
    };
    let train = &job.config.train;
    // After a stage that trained the backbone, the averaged network has a different backbone.
    let averaged = stage.first > 0 && train.ema.is_some();
    if averaged || !classifier.only_head_trains() || !saves_work(train, samples, variants, stage) {
        return Ok(None);
    }
    let network = classifier.valid();
    let backend = (cache.backend)(&network, &job.config).map_err(TrainError::Features)?;
    let engine = match backend {
        FeatureBackend::Sessions(pool) => FeatureEngine::Pool(pool),
        FeatureBackend::Burn { reason } => {
            if let Some(reason) = reason {
                observer.note(&format!(
                    "the features of the frozen backbone are computed with Burn on the training \
                     device: {reason}"
                ));
            }
            FeatureEngine::Here(Box::new(BurnExtractor {
                network,
                images: job.config.model.image_shape(),
                device: job.device.clone(),
            }))
        }
    };
    let form = FeatureForm {
        key: key(job, classifier, samples.source, &engine.name()).map_err(failed)?,
        len: job.config.model.head_input_len(),
        training: samples.training.to_vec(),
        symmetries: variants,
        validation: samples.validation.to_vec(),
    };
    let folder = cache
        .folder
        .clone()
        .unwrap_or_else(|| run_features_dir(job));
    let path = folder.join(format!("{}.features", &form.key[..16]));
    let count = job.dataset.len();
    let features = if let Ok(features) = Features::open(&path, &form, count) {
        observer.note(&format!(
            "using the cached features of the frozen backbone in {}",
            path.display()
        ));
        features
    } else {
        fs::create_dir_all(&folder).map_err(failed)?;
        let writer = FeatureWriter {
            job,
            form: &form,
            source: samples.source,
            observer,
        };
        if !writer.write(&path, engine)? {
            return Ok(None);
        }
        Features::open(&path, &form, count).map_err(failed)?
    };
    Ok(Some(Arc::new(samples.source.with_features(features))))
}

/// Returns whether computing all samples and variants once is no more work than the stage itself.
fn saves_work(
    train: &TrainConfig,
    samples: &RunSamples,
    variants: usize,
    stage: &StageSpan,
) -> bool {
    let epoch = stage.steps * train.step_size() + samples.validation.len();
    samples.training.len() * variants + samples.validation.len() <= epoch * stage.epochs
}

fn failed(error: impl Display) -> TrainError {
    TrainError::Features(error.to_string())
}

/// Folder of the features that only this run uses.
fn run_features_dir(job: &TrainJob) -> PathBuf {
    job.out.join("features")
}

/// Removes the features that an earlier stage of the run stored.
pub(super) fn remove_features(job: &TrainJob) -> Result<(), TrainError> {
    match fs::remove_dir_all(run_features_dir(job)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Hash of everything that the features depend on, except the split and the augmentation.
fn key(
    job: &TrainJob,
    classifier: &Classifier,
    source: &SampleSource,
    extractor: &str,
) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let model = &job.config.model;
    let preprocess = serde_json::to_string(source.preprocess())?;
    let parts = [
        model.arch.name(),
        &format!("{:?} {:?}", model.projection.is_some(), model.pooling()),
        &preprocess,
        &classifier.hash_before_head(),
        extractor,
    ];
    for part in parts {
        hasher.update(part);
        hasher.update([0]);
    }
    for index in 0..source.dataset().len() {
        hasher.update(source.identity(index)?);
        hasher.update([0]);
    }
    Ok(hex::encode(hasher.finalize()))
}
