//! Evaluation of a model, a training run or a file of probabilities against labels.
//!
//! [`run`] evaluates one [`EvalSubject`] and returns an [`EvalReport`]; [`compare`] returns the
//! differences of two subjects on the same samples. Both take an [`EvalConfig`] and send progress and
//! notes to a [`ScoreObserver`]. docs/evaluation.md defines the numbers.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use rgby::data::Images;
//! use rgby::eval::{self, EvalConfig, EvalSubject};
//!
//! # fn main() -> Result<(), eval::EvalError> {
//! let config = EvalConfig {
//!     images: Some(Images::plain("valid")),
//!     labels: Some("valid.csv".into()),
//!     ..EvalConfig::new(EvalSubject::Model("model.onnx".into()))
//! };
//! let report = eval::run(&config, &())?;
//! println!("macro-F1 {:.3}", report.evaluation().macro_f1);
//! report.write(Path::new("report"))?;
//! # Ok(())
//! # }
//! ```

mod comparison;
mod config;
mod data;
mod error;
mod files;
mod occlusion_maps;
mod operating_points;
mod page;
mod predictions;
mod report;
#[cfg(feature = "train")]
mod run_data;
mod samples;
mod text;
mod tuning;

use crate::score::ScoreObserver;
use occlusion_maps::OcclusionMaps;
use predictions::LabelledPredictions;
use tuning::ClassRatios;

pub use comparison::{ComparedSubject, ComparisonReport, compare};
pub use config::{EvalConfig, EvalSubject, ThresholdTuning};
pub use error::EvalError;
pub use report::{EvalReport, TunedThresholds};

/// Evaluates every labelled sample that has probabilities.
///
/// Samples that cannot be scored are no error; they are in [`EvalReport::failures`].
///
/// # Errors
///
/// A file is missing or invalid, the engine is not available or fails, or no sample could be
/// evaluated.
pub fn run(config: &EvalConfig, observer: &dyn ScoreObserver) -> Result<EvalReport, EvalError> {
    let ratios = ClassRatios::read(config)?;
    let mut predictions = LabelledPredictions::load(&config.subject, config, observer)?;
    let model = predictions.model.take();
    let mut report = EvalReport::new(config, predictions, ratios.as_ref())?;
    if let Some(mut model) = model {
        // The metrics are complete without the maps.
        match OcclusionMaps::compute(&report.samples, &report.images, &mut model, observer) {
            Ok(maps) => report.maps = maps,
            Err(error) => observer.warn(&format!("no occlusion maps: {error}")),
        }
    }
    Ok(report)
}
