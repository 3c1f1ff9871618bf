//! Networks in Burn: imported backbones, the 8-layer baseline, and the heads that go on them.

mod backbone;
mod baseline;
mod batch_norm;
mod classifier;
mod config;
mod head;
mod random_export;
mod weights;

pub use backbone::{Backbone, WeightTable};
pub use batch_norm::BatchNorm2d;
pub use classifier::Classifier;
pub use config::{Arch, ModelConfig};
pub use head::Head;
pub use random_export::random_export;
pub use weights::{ConvertReport, WeightsError, convert, load_weights, save_weights};
