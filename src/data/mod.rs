//! Labelled data sets: the labels file, splits, the order of training samples, and a loader that
//! decodes ahead of training.

mod class_names;
mod dataset;
mod labels_csv;
mod loader;
mod random;
mod sampler;
mod split;
#[cfg(test)]
mod tests;

pub use class_names::{ClassNamesError, read_class_names};
pub use dataset::{DataError, Dataset};
pub use labels_csv::{LabelError, LabelFault, LabelTable, read_labels};
pub use loader::{Batch, Loader, epoch_order};
pub use sampler::{Sampler, balanced_len, balanced_order, repeat_factors};
pub use split::{Fold, ParseSplitError, Parts, Split, SplitError, SplitFault, write_split};
