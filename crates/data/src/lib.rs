//! Labelled data sets: images, labels, splits, sampling, augmentation, the pixel cache, and a
//! loader that decodes batches ahead of training.

mod augment;
mod cache;
mod check;
mod class_names;
mod dataset;
mod features;
mod images;
mod labels_csv;
mod loader;
mod packed;
mod random;
mod sampler;
mod scores;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use augment::{AugmentConfig, Augmenter, BatchPosition};
pub use cache::{CacheError, CacheForm, PixelCache};
pub use check::{
    ChannelStatistics, CheckConfig, CheckError, CheckReport, ClassCount, Problem, ProblemKind,
    RARE, Severity, SizeCount, check_data,
};
pub use class_names::{ClassNamesError, read_class_names};
pub use dataset::{DataError, Dataset};
pub use features::{FeatureForm, Features};
pub use images::{
    ImageManifestError, ImageManifestFault, Images, ImagesError, Layout, Pattern, PatternError,
    PatternFault,
};
pub use labels_csv::{LabelError, LabelFault, LabelTable, read_labels};
use labels_csv::{LabelLine, LabelProblem, survey_labels};
pub use loader::{Batch, BatchLoader, LoadPlan, SampleView, epoch_order};
pub use packed::{PackedError, PackedFault};
pub use sampler::{Sampler, balanced_len, balanced_order, repeat_factors};
pub use scores::{NpyFault, Scores, ScoresError, ScoresFault, read_scores};
pub use source::SampleSource;
pub use split::{
    ParseSplitError, Split, SplitError, SplitFault, SplitIndices, ValidationFold, stratify,
    write_split,
};
