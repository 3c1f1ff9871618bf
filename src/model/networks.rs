//! The networks. To add one, add a skeleton in `onnx/` and an entry at the end of this file.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::plain_cnn::PlainCnn;
use super::stem::with_channels;
use crate::graph::feature_map_size::SlidingWindow;

/// Data of an imported network that the build script extracts from its skeleton.
#[derive(Debug)]
pub struct Imported {
    /// ONNX file without weights.
    pub skeleton: &'static [u8],
    /// Number of channels of the last feature map.
    pub features: usize,
    /// Path of the first convolution's filters.
    pub stem: &'static str,
    /// Convolutions and poolings that change the image size, in order.
    pub windows: &'static [SlidingWindow],
    /// Path of each parameter in the generated code and its initializer's name in the skeleton.
    pub weights: &'static [(&'static str, &'static str)],
}

impl Imported {
    /// Returns channels and side of the feature map for a square input of side `size`; the side is
    /// 0 if the input is too small.
    fn feature_map(&self, size: usize) -> (usize, usize) {
        let mut windows = self.windows.iter();
        let shrunk = windows.try_fold(size, |size, window| window.apply(size));
        (self.features, shrunk.unwrap_or(0))
    }
}

/// Defines [`Arch`] and [`Backbone`] from a list of imported networks:
/// `Variant = "name", file in onnx/, input side of the pretraining, minimum input side;`
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

        /// A network architecture.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        pub enum Arch {
            /// Two convolutions, one max pooling, two dense layers: the reference experiments'
            /// baseline.
            #[serde(rename = "baseline")]
            Baseline,
            /// Eight VGG-style convolutions with `BatchNorm`: the reference experiments' first
            /// notebook.
            #[serde(rename = "plain")]
            Plain,
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name)]
                #[value(name = $name)]
                $variant,
            )+
        }

        impl Arch {
            /// The imported networks, for which pretrained weights can be converted.
            pub const IMPORTED: &[Self] = &[$(Self::$variant),+];

            /// Returns the name in configs and on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::Baseline => "baseline",
                    Self::Plain => "plain",
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns the skeleton of the pretrained network and the mapping of its weights;
            /// `None` for networks without pretrained weights.
            #[must_use]
            pub fn imported(self) -> Option<&'static Imported> {
                match self {
                    Self::Baseline | Self::Plain => None,
                    $(Self::$variant => Some(&$file::IMPORTED),)+
                }
            }

            /// Returns the side of the square training images, in pixels, of the pretraining or the
            /// reference experiments.
            #[must_use]
            pub fn native_input_size(self) -> u32 {
                match self {
                    Self::Baseline => 139,
                    Self::Plain => 256,
                    $(Self::$variant => $native,)+
                }
            }

            /// Returns the side of the smallest square input, in pixels, with a non-empty feature
            /// map.
            #[must_use]
            pub fn min_input_size(self) -> u32 {
                match self {
                    Self::Baseline | Self::Plain => 8,
                    $(Self::$variant => $least,)+
                }
            }

            /// Returns channels and side of the feature map for a square input of `input_size`
            /// pixels.
            #[must_use]
            pub fn feature_map(self, input_size: u32) -> (usize, usize) {
                let size = input_size as usize;
                match self {
                    Self::Baseline => Baseline::feature_map(size),
                    Self::Plain => PlainCnn::feature_map(size),
                    $(Self::$variant => $file::IMPORTED.feature_map(size),)+
                }
            }
        }

        /// Maps images `[N, C, S, S]` to a feature map `[N, F, h, w]`.
        #[derive(Module, Debug)]
        // `Module` is not implemented for boxes, and a process has only one backbone.
        #[allow(clippy::large_enum_variant)]
        pub enum Backbone {
            /// See [`Arch::Baseline`].
            Baseline(Baseline),
            /// See [`Arch::Plain`].
            Plain(PlainCnn),
            $(
                #[doc = concat!("See [`Arch::", stringify!($variant), "`].")]
                $variant($file::Model),
            )+
        }

        impl Backbone {
            /// Creates a backbone with random weights, for images of `channels` channels.
            #[must_use]
            pub fn new(arch: Arch, channels: usize, device: &Device) -> Self {
                match arch {
                    Arch::Baseline => Self::Baseline(Baseline::new(channels, device)),
                    Arch::Plain => Self::Plain(PlainCnn::new(channels, device)),
                    $(Arch::$variant => {
                        let network = $file::Model::new(device);
                        Self::$variant(with_channels(network, $file::IMPORTED.stem, channels))
                    })+
                }
            }

            /// Computes the feature map.
            #[must_use]
            pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
                match self {
                    Self::Baseline(network) => network.forward(images),
                    Self::Plain(network) => network.forward(images),
                    $(Self::$variant(network) => network.forward(images),)+
                }
            }

            /// Returns the architecture.
            #[must_use]
            pub fn arch(&self) -> Arch {
                match self {
                    Self::Baseline(_) => Arch::Baseline,
                    Self::Plain(_) => Arch::Plain,
                    $(Self::$variant(_) => Arch::$variant,)+
                }
            }
        }
    };
}

networks! {
    /// torchvision's and timm's `ResNet50` (He et al. 2015, stride on the 3×3).
    ResNet50 = "resnet50", resnet50, 224, 32;
    /// `ResNet50` as published and in Keras (stride on the first 1×1).
    ResNet50V1 = "resnet50-v1", resnet50_v1, 224, 32;
    /// `InceptionResNetV2` (Szegedy et al. 2016) of timm and Keras.
    InceptionResNetV2 = "inception-resnet-v2", inception_resnet_v2, 299, 75;
    /// `DenseNet121` (Huang et al. 2017) of torchvision and Keras.
    DenseNet121 = "densenet121", densenet121, 224, 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_map_size_matches_the_forward_pass() {
        let device = Device::flex();
        let own = [Arch::Baseline, Arch::Plain];
        for &arch in own.iter().chain(Arch::IMPORTED) {
            let least = arch.min_input_size();
            for size in [least, least + 5, least + 30] {
                let side = size as usize;
                let images = Tensor::zeros([1, 4, side, side], &device);
                let [_, channels, height, width] =
                    Backbone::new(arch, 4, &device).forward(images).dims();
                assert_eq!(height, width);
                assert_eq!(
                    arch.feature_map(size),
                    (channels, height),
                    "{arch:?} {size}"
                );
            }
        }
        // Sizes from the papers.
        assert_eq!(Arch::ResNet50.feature_map(224), (2048, 7));
        assert_eq!(Arch::InceptionResNetV2.feature_map(299), (1536, 8));
        assert_eq!(Arch::InceptionResNetV2.feature_map(139), (1536, 3));
        assert_eq!(Arch::InceptionResNetV2.feature_map(20), (1536, 0));
    }
}
