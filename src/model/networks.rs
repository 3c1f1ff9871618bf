//! The networks. Adding one is a skeleton in `onnx/` and an entry at the end of this file.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::ModelConfig;
use super::baseline::Baseline;
use super::stem::with_channels;

/// What the build read off a skeleton: the graph, and where its parts went in the generated code.
#[derive(Debug)]
pub struct Imported {
    /// The ONNX file, without weights.
    pub skeleton: &'static [u8],
    /// Channels of the last feature map.
    pub features: usize,
    /// Path of the first convolution's filters.
    pub stem: &'static str,
    /// Path of each parameter, and the name of the skeleton's initializer for it.
    pub weights: &'static [(&'static str, &'static str)],
}

/// Makes [`Arch`] and [`Backbone`] from a list of imported networks:
/// `Variant = "name", file of onnx/, side of the images it was trained on, least side;`
macro_rules! networks {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $file:ident, $native:literal, $least:literal;)+) => {
        $(
            #[allow(missing_docs, clippy::all, clippy::pedantic, unused, rustdoc::all)]
            mod $file {
                include!(concat!(env!("OUT_DIR"), "/backbones/", stringify!($file), ".rs"));

                pub(super) static IMPORTED: super::Imported = include!(concat!(
                    env!("OUT_DIR"),
                    "/backbones/",
                    stringify!($file),
                    ".table.rs"
                ));
            }
        )+

        /// A network.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        pub enum Arch {
            /// Two convolutions, one max pooling, two dense layers: the reference's baseline.
            #[serde(rename = "baseline")]
            Baseline,
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name)]
                #[value(name = $name)]
                $variant,
            )+
        }

        impl Arch {
            /// The networks that were imported, and so can be pretrained.
            pub const IMPORTED: &[Self] = &[$(Self::$variant),+];

            /// The name in configs and on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::Baseline => "baseline",
                    $(Self::$variant => $name,)+
                }
            }

            /// The skeleton of the pretrained network and where its weights go; none for the
            /// baseline, which nobody pretrained.
            #[must_use]
            pub fn imported(self) -> Option<&'static Imported> {
                match self {
                    Self::Baseline => None,
                    $(Self::$variant => Some(&$file::IMPORTED),)+
                }
            }

            /// Side of the square images, in pixels, that the pretrained network was trained on.
            #[must_use]
            pub fn native_input_size(self) -> u32 {
                match self {
                    Self::Baseline => 139,
                    $(Self::$variant => $native,)+
                }
            }

            /// The smallest square input, in pixels, that leaves a feature map.
            #[must_use]
            pub fn min_input_size(self) -> u32 {
                match self {
                    Self::Baseline => 8,
                    $(Self::$variant => $least,)+
                }
            }
        }

        /// Images `[N, C, S, S]` to features `[N, F, h, w]`.
        #[derive(Module, Debug)]
        // `Module` is not implemented for boxes; there is one backbone in a process, not a list.
        #[allow(clippy::large_enum_variant)]
        pub enum Backbone {
            /// See [`Arch::Baseline`].
            Baseline(Baseline),
            $(
                #[doc = concat!("See [`Arch::", stringify!($variant), "`].")]
                $variant($file::Model),
            )+
        }

        impl Backbone {
            /// Builds a backbone with random weights.
            #[must_use]
            pub fn new(config: &ModelConfig, device: &Device) -> Self {
                let channels = config.channels.len();
                match config.arch {
                    Arch::Baseline => Self::Baseline(Baseline::new(channels, device)),
                    $(Arch::$variant => {
                        let network = $file::Model::new(device);
                        Self::$variant(with_channels(network, $file::IMPORTED.stem, channels))
                    })+
                }
            }

            /// Computes the features.
            #[must_use]
            pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
                match self {
                    Self::Baseline(network) => network.forward(images),
                    $(Self::$variant(network) => network.forward(images),)+
                }
            }
        }
    };
}

networks! {
    /// torchvision's and timm's `ResNet50` (He et al. 2015, stride on the 3×3).
    ResNet50 = "resnet50", resnet50, 224, 32;
    /// `ResNet50` as published and as Keras has it (stride on the first 1×1).
    ResNet50V1 = "resnet50-v1", resnet50_v1, 224, 32;
    /// `InceptionResNetV2` (Szegedy et al. 2016) of timm and Keras.
    InceptionResNetV2 = "inception-resnet-v2", inception_resnet_v2, 299, 75;
    /// `DenseNet121` (Huang et al. 2017) of torchvision and Keras.
    DenseNet121 = "densenet121", densenet121, 224, 32;
}
