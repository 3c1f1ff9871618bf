//! Feature extractors, and the generated code of those that were imported from ONNX.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::baseline::Baseline;
use super::{Arch, ModelConfig};

/// torchvision's ResNet50 without pooling and classifier.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused, rustdoc::all)]
mod resnet50 {
    include!(concat!(env!("OUT_DIR"), "/backbones/resnet50.rs"));
}

/// timm's InceptionResNetV2 without pooling and classifier.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused, rustdoc::all)]
mod inception_resnet_v2 {
    include!(concat!(
        env!("OUT_DIR"),
        "/backbones/inception_resnet_v2.rs"
    ));
}

/// Parameter path in the generated code and the name of the skeleton's initializer.
pub type WeightTable = &'static [(&'static str, &'static str)];

pub(super) const RESNET50_WEIGHTS: WeightTable =
    &include!(concat!(env!("OUT_DIR"), "/backbones/resnet50.table.rs"));
pub(super) const INCEPTION_RESNET_V2_WEIGHTS: WeightTable = &include!(concat!(
    env!("OUT_DIR"),
    "/backbones/inception_resnet_v2.table.rs"
));

/// Images `[N, C, S, S]` to features `[N, F, h, w]`.
#[derive(Module, Debug)]
// `Module` is not implemented for boxes; there is one backbone in a process, not a list of them.
#[allow(clippy::large_enum_variant)]
pub enum Backbone {
    /// See [`Arch::Baseline`].
    Baseline(Baseline),
    /// See [`Arch::ResNet50`].
    ResNet50(resnet50::Model),
    /// See [`Arch::InceptionResNetV2`].
    InceptionResNetV2(inception_resnet_v2::Model),
}

impl Backbone {
    /// Builds a backbone with random weights.
    #[must_use]
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config.arch {
            Arch::Baseline => Self::Baseline(Baseline::new(config.channels.len(), device)),
            Arch::ResNet50 => Self::ResNet50(resnet50::Model::new(device)),
            Arch::InceptionResNetV2 => {
                Self::InceptionResNetV2(inception_resnet_v2::Model::new(device))
            }
        }
    }

    /// Computes the features.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Baseline(network) => network.forward(images),
            Self::ResNet50(network) => network.forward(images),
            Self::InceptionResNetV2(network) => network.forward(images),
        }
    }
}
