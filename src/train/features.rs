//! A frozen backbone is computed once: its features are written to a file, and the head trains
//! from that.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use burn::module::Module;
use burn::tensor::Device;
use sha2::{Digest, Sha256};

use super::step::image_tensor;
use super::{Config, TrainConfig, TrainError, TrainJob, TrainingObserver};
use crate::data::{
    AugmentConfig, Batch, BatchLoader, FeatureForm, Features, LoadPlan, SampleSource, SampleView,
};
use crate::imaging::{DIHEDRAL, SampleError};
use crate::model::Classifier;

/// Computes what a network's head takes. On the CPU ONNX Runtime is faster at it than Burn.
pub trait Extractor {
    /// `[N, L]`, row by row, of the images `[N, C, S, S]` of a batch.
    ///
    /// # Errors
    ///
    /// A sentence that says why they could not be computed.
    fn extract(&mut self, batch: Batch) -> Result<Vec<f32>, String>;

    /// What computes them.
    fn name(&self) -> String;
}

/// Makes an [`Extractor`] of a network in inference mode; `None` where Burn itself is best.
pub type MakeExtractor = dyn Fn(&Classifier, &Config) -> Result<Option<Box<dyn Extractor>>, String>;

/// Where features are kept.
pub struct FeatureCache<'a> {
    /// The folder; `None` for one in the run's, which is emptied once they are not needed.
    pub folder: Option<PathBuf>,
    /// What computes them.
    pub extractor: &'a MakeExtractor,
}

/// The samples of a run, as the split has them.
pub(super) struct Samples<'a> {
    pub training: &'a [usize],
    pub validation: &'a [usize],
    pub source: &'a Arc<SampleSource>,
}

/// The part of a run for which features may be computed.
pub(super) struct StageAt {
    /// Its first epoch.
    pub first: u32,
    /// Its length in epochs.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps: usize,
}

/// The symmetries in which a training sample is shown, if there are no other variations.
fn views(augment: AugmentConfig) -> Option<usize> {
    let dihedral = augment.dihedral;
    let few = AugmentConfig {
        dihedral,
        ..AugmentConfig::default()
    };
    (augment == few).then_some(if dihedral { DIHEDRAL.into() } else { 1 })
}

/// The samples by their features, if in this stage nothing but the head trains, the views are few
/// and computing them all once is less work than computing what the stage needs.
///
/// If the run is told to stop meanwhile, there is no file; the caller must stop then.
pub(super) fn features(
    job: &TrainJob,
    classifier: &Classifier,
    samples: &Samples,
    stage: &StageAt,
    watch: &dyn TrainingObserver,
) -> Result<Option<Arc<SampleSource>>, TrainError> {
    let (Some(cache), Some(views)) = (&job.features, views(job.config.data.augment)) else {
        return Ok(None);
    };
    let train = &job.config.train;
    // An average of the weights would have a backbone of its own once that has trained.
    let averaged = stage.first > 0 && train.ema.is_some();
    if averaged || !classifier.only_head_trains() || !saves_work(train, samples, views, stage) {
        return Ok(None);
    }
    let network = classifier.valid();
    let made = (cache.extractor)(&network, &job.config).map_err(TrainError::Features)?;
    let mut extractor = made.unwrap_or_else(|| {
        Box::new(BurnExtractor {
            network,
            images: job.config.model.image_shape(),
            device: job.device.clone(),
        })
    });
    let form = FeatureForm {
        key: key(job, classifier, samples.source, &extractor.name()).map_err(failed)?,
        len: job.config.model.head_input_len(),
        training: samples.training.to_vec(),
        symmetries: views,
        validation: samples.validation.to_vec(),
    };
    let folder = cache.folder.clone().unwrap_or_else(|| folder_of(job));
    let path = folder.join(format!("{}.features", &form.key[..16]));
    let count = job.dataset.len();
    let features = if let Ok(features) = Features::open(&path, &form, count) {
        watch.note(&format!(
            "the frozen part's features are those in {}",
            path.display()
        ));
        features
    } else {
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut pass = Pass {
            job,
            form: &form,
            source: samples.source,
            failed: None,
        };
        if !pass.write(&path, &mut *extractor, watch)? {
            return Ok(None);
        }
        Features::open(&path, &form, count).map_err(failed)?
    };
    Ok(Some(Arc::new(samples.source.with_features(features))))
}

/// Whether a pass over all samples and views is no more work than the stage itself.
fn saves_work(train: &TrainConfig, samples: &Samples, views: usize, stage: &StageAt) -> bool {
    let epoch = stage.steps * train.step_size() + samples.validation.len();
    samples.training.len() * views + samples.validation.len() <= epoch * stage.epochs
}

fn failed(error: impl Display) -> TrainError {
    TrainError::Features(error.to_string())
}

/// Where features are kept that only this run needs.
fn folder_of(job: &TrainJob) -> PathBuf {
    job.out.join("features")
}

/// Removes what an earlier stage of the run kept there.
pub(super) fn remove_features(job: &TrainJob) -> Result<(), TrainError> {
    match fs::remove_dir_all(folder_of(job)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Hash of all that the features depend on, but which samples train and how they are shown.
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

/// One pass over all samples and views.
struct Pass<'a> {
    job: &'a TrainJob<'a>,
    form: &'a FeatureForm,
    source: &'a Arc<SampleSource>,
    /// The sample that could not be read.
    failed: Option<SampleError>,
}

impl Pass<'_> {
    /// Writes all features to `path`; false if the run was told to stop meanwhile.
    fn write(
        &mut self,
        path: &Path,
        extractor: &mut dyn Extractor,
        watch: &dyn TrainingObserver,
    ) -> Result<bool, TrainError> {
        let form = self.form;
        watch.note(&format!(
            "computing the frozen part once, with {}: {} samples × {}, and {} as they are; \
             {:.1} MB in {}",
            extractor.name(),
            form.training.len(),
            form.symmetries,
            form.validation.len(),
            (form.count() * form.len * size_of::<f32>()) as f64 / 1e6,
            path.display()
        ));
        let written = Features::write(path, form, |push| self.run(extractor, push, watch));
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if self.job.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        written.map_err(failed)?;
        Ok(true)
    }

    fn run(
        &mut self,
        extractor: &mut dyn Extractor,
        push: &mut dyn FnMut(&[f32]) -> io::Result<()>,
        watch: &dyn TrainingObserver,
    ) -> io::Result<()> {
        let config = &self.job.config;
        let mut done = 0;
        for (view, samples) in self.form.groups() {
            let batches = samples.chunks(config.train.batch_size);
            let plan = LoadPlan {
                view: SampleView::Symmetry(view),
                ..LoadPlan::new(batches.map(<[usize]>::to_vec).collect())
            };
            for batch in BatchLoader::batches(self.source, plan, config.data.workers) {
                let batch = batch.map_err(|error| {
                    let text = error.to_string();
                    self.failed = Some(error);
                    io::Error::other(text)
                })?;
                done += batch.indices.len();
                let rows = extractor.extract(batch).map_err(io::Error::other)?;
                rows.chunks_exact(self.form.len).try_for_each(&mut *push)?;
                watch.extracted(done, self.form.count());
                if self.job.stop.load(Ordering::Relaxed) {
                    return Err(io::Error::other("stopped"));
                }
            }
        }
        Ok(())
    }
}

/// The network itself, where it trains.
struct BurnExtractor {
    network: Classifier,
    images: (usize, usize),
    device: Device,
}

impl Extractor for BurnExtractor {
    fn extract(&mut self, batch: Batch) -> Result<Vec<f32>, String> {
        let images = image_tensor(batch, self.images, &self.device);
        Ok(self
            .network
            .head_input(images)
            .into_data()
            .iter::<f32>()
            .collect())
    }

    fn name(&self) -> String {
        "Burn".into()
    }
}
