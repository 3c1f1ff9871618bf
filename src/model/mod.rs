//! Networks in Burn: imported backbones, the two networks of the reference experiments, heads and
//! pretrained weights.

mod baseline;
mod batch_norm;
mod classifier;
mod config;
mod conversion;
mod exported;
mod freeze;
pub mod fused;
mod head;
mod networks;
mod parameters;
mod plain_cnn;
mod pretrained;
mod random_export;
mod recalibrate;
mod running_statistic;
mod stem;
mod stem_filters;
#[cfg(test)]
mod testing;
mod weights;

pub use batch_norm::BatchNorm2d;
pub use classifier::Classifier;
pub use config::{ModelConfig, PerLayer, Pooling};
pub use conversion::{
    ConversionError, ConversionOptions, ConversionSource, ConvertedModel, read_onnx,
};
pub use exported::{CONFIG_KEY, Exported};
pub use freeze::{FreezeError, freeze};
pub use head::Head;
pub use networks::{Arch, Backbone, Imported};
pub use pretrained::{Pretrained, PretrainedReport};
pub use random_export::random_export;
pub use recalibrate::Recalibration;
pub use stem_filters::{StemFilters, StemFiltersError};
pub use weights::{WeightTransfer, WeightsError, load_weights, save_weights, transfer_weights};
