//! `[model]` of a config: which network, on what input, for which classes.

use serde::{Deserialize, Serialize};

use super::Arch;
use crate::imaging::CHANNELS;
use crate::labels::hpa_classes;

/// Most channels of an input.
const MAX_CHANNELS: usize = 64;

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The network.
    pub arch: Arch,
    /// Side of the square input, pixels.
    pub input_size: u32,
    /// Stains or sums of them, in the order of the input's channels.
    #[serde(default = "default_channels")]
    pub channels: Vec<String>,
    /// Class names, in the order of the outputs.
    #[serde(default = "hpa_classes")]
    pub classes: Vec<String>,
    /// Whether a `BatchNorm` of its own normalises the input's channels, with Keras's constants.
    #[serde(default)]
    pub input_norm: bool,
    /// Width of a 1×1 convolution with ReLU on the feature map, before pooling; none if absent.
    pub projection: Option<usize>,
    /// How the feature map becomes a vector; if absent, what suits the network.
    pub pooling: Option<Pooling>,
    /// Share of the pooled features dropped in training, 0–1.
    #[serde(default)]
    pub dropout: f64,
    /// Widths of dense ReLU layers between features and output.
    #[serde(default)]
    pub hidden: Vec<usize>,
    /// Share of each hidden layer's outputs dropped in training, 0–1.
    #[serde(default)]
    pub hidden_dropout: PerLayer,
}

/// How a feature map `[F, h, w]` becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean of each channel: `F` values.
    Average,
    /// The mean of each channel, then the largest value of each: `2·F` values.
    AverageMax,
    /// All of it: `F·h·w` values, so that the weights depend on the input's size.
    Flatten,
}

/// One number for all hidden layers, or one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "model.hidden_dropout takes a number, or a list with a number for each of \
                 model.hidden"
)]
pub enum PerLayer {
    /// The same for all.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl Default for PerLayer {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl PerLayer {
    /// One number for each of `layers` layers; none where a list is shorter or longer.
    fn each(&self, layers: usize) -> Option<Vec<f64>> {
        match self {
            Self::All(value) => Some(vec![*value; layers]),
            Self::Each(values) => (values.len() == layers).then(|| values.clone()),
        }
    }
}

impl ModelConfig {
    /// A network with one dense layer on its features and the 28 classes of the Human Protein
    /// Atlas.
    #[must_use]
    pub fn new(arch: Arch, input_size: u32) -> Self {
        Self {
            arch,
            input_size,
            channels: default_channels(),
            classes: hpa_classes(),
            input_norm: false,
            projection: None,
            pooling: None,
            dropout: 0.0,
            hidden: Vec::new(),
            hidden_dropout: PerLayer::default(),
        }
    }

    /// The pooling: what the config says, or else the average for networks that can be pretrained
    /// and all of the feature map for the others.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling.unwrap_or(if self.arch.imported().is_some() {
            Pooling::Average
        } else {
            Pooling::Flatten
        })
    }

    /// Channels and side of the images that the network takes.
    #[must_use]
    pub fn image_shape(&self) -> (usize, usize) {
        (self.channels.len(), self.input_size as usize)
    }

    /// Share of outputs dropped after each hidden layer, in order.
    #[must_use]
    pub fn hidden_dropout(&self) -> Vec<f64> {
        let layers = self.hidden.len();
        let shares = self.hidden_dropout.each(layers);
        // Only a config that does not pass `validate` has another number of them.
        shares.unwrap_or_else(|| vec![0.0; layers])
    }

    /// Values of what [`head_input`](super::Classifier::head_input) makes of an image.
    #[must_use]
    pub fn head_input_len(&self) -> usize {
        let (features, side) = self.arch.feature_map(self.input_size);
        match self.projection {
            Some(_) => features * side * side,
            None => self.pooled_width(),
        }
    }

    /// Values of the vector that the first dense layer reads.
    #[must_use]
    pub fn pooled_width(&self) -> usize {
        let (features, side) = self.arch.feature_map(self.input_size);
        let channels = self.projection.unwrap_or(features);
        match self.pooling() {
            Pooling::Average => channels,
            Pooling::AverageMax => 2 * channels,
            Pooling::Flatten => channels * side * side,
        }
    }

    /// Whether all layers but the backbone's have the same names and shapes in both, and the same
    /// meaning: a checkpoint of one can be loaded whole into the other.
    #[must_use]
    pub fn same_head(&self, other: &Self) -> bool {
        self.classes == other.classes
            && self.hidden == other.hidden
            && self.projection == other.projection
            && self.input_norm == other.input_norm
            && self.pooling() == other.pooling()
            && self.pooled_width() == other.pooled_width()
    }

    /// The same with every default written out.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn resolved(mut self) -> Result<Self, String> {
        self.validate()?;
        self.pooling = Some(self.pooling());
        Ok(self)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// A sentence that names the field and the mend.
    pub fn validate(&self) -> Result<(), String> {
        let smallest = self.arch.min_input_size();
        if !(smallest..=4096).contains(&self.input_size) {
            return Err(format!(
                "model.input_size is {}; {} takes {smallest} to 4096",
                self.input_size,
                self.arch.name()
            ));
        }
        if !(1..=MAX_CHANNELS).contains(&self.channels.len()) {
            return Err(format!(
                "model.channels has {} entries; name 1 to {MAX_CHANNELS} channels",
                self.channels.len()
            ));
        }
        if self.classes.is_empty() {
            return Err("model.classes is empty; name at least one class".into());
        }
        if self.hidden.contains(&0) {
            return Err("model.hidden holds 0; a layer needs at least one unit".into());
        }
        if self.projection == Some(0) {
            return Err("model.projection is 0; give a width, or leave it out".into());
        }
        self.validate_dropout()
    }

    fn validate_dropout(&self) -> Result<(), String> {
        let layers = self.hidden.len();
        let hidden = match &self.hidden_dropout {
            PerLayer::All(share) => vec![*share],
            PerLayer::Each(shares) if shares.len() == layers => shares.clone(),
            PerLayer::Each(shares) => {
                return Err(format!(
                    "model.hidden_dropout has {} values for {layers} hidden layers; give one \
                     number, or one for each of model.hidden",
                    shares.len()
                ));
            }
        };
        let hidden = hidden.into_iter().map(|share| ("hidden_dropout", share));
        let mut shares = std::iter::once(("dropout", self.dropout)).chain(hidden);
        match shares.find(|(_, share)| !(0.0..1.0).contains(share)) {
            Some((field, share)) => Err(format!(
                "model.{field} is {share}; it must be at least 0 and below 1"
            )),
            None => Ok(()),
        }
    }
}

fn default_channels() -> Vec<String> {
    CHANNELS.map(String::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelConfig, String> {
        let text = format!("arch = 'inception-resnet-v2'\ninput_size = 139\n{text}");
        let config: ModelConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        config.resolved()
    }

    #[test]
    fn defaults_suit_the_network() {
        let config = parse("").unwrap();
        assert_eq!(config.pooling, Some(Pooling::Average));
        assert_eq!(config.pooled_width(), 1536);
        let baseline = ModelConfig::new(Arch::Baseline, 139);
        assert_eq!(baseline.pooling(), Pooling::Flatten);
        assert_eq!(baseline.pooled_width(), 32 * 67 * 67);
        let plain = ModelConfig::new(Arch::Plain, 256);
        assert_eq!(plain.pooled_width(), 256 * 32 * 32);
        // What is written is read back as it was.
        let text = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<ModelConfig>(&text).unwrap(), config);
    }

    #[test]
    fn the_first_dense_layer_has_the_width_of_what_it_reads() {
        for (text, width) in [
            ("pooling = 'average-max'", 2 * 1536),
            ("pooling = 'flatten'", 1536 * 9),
            ("projection = 128\npooling = 'flatten'", 128 * 9),
            ("projection = 128\npooling = 'average-max'", 256),
        ] {
            assert_eq!(parse(text).unwrap().pooled_width(), width, "{text}");
        }
    }

    #[test]
    fn hidden_dropout_is_one_number_or_a_list() {
        let shares = |text: &str| parse(text).map(|config| config.hidden_dropout());
        let hidden = "hidden = [512, 512]\n";
        assert_eq!(shares(hidden).unwrap(), [0.0, 0.0]);
        let one = shares(&format!("{hidden}hidden_dropout = 0.25")).unwrap();
        assert_eq!(one, [0.25, 0.25]);
        let list = shares(&format!("{hidden}hidden_dropout = [0, 0.25]")).unwrap();
        assert_eq!(list, [0.0, 0.25]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!("channels = {:?}", vec!["x"; 65]);
        for (text, wanted) in [
            ("projection = 0", "model.projection is 0"),
            ("pooling = 'max'", "average-max"),
            ("dropout = 1", "model.dropout is 1"),
            ("hidden_dropout = 1.5", "model.hidden_dropout is 1.5"),
            (
                "hidden_dropout = [0.1]",
                "model.hidden_dropout has 1 values for 0 hidden layers",
            ),
            ("hidden_dropout = 'half'", "takes a number, or a list"),
            ("hidden = [0]", "model.hidden holds 0"),
            ("channels = []", "model.channels has 0 entries"),
            (&many, "name 1 to 64 channels"),
            ("classes = []", "model.classes is empty"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn heads_are_compared_by_what_they_are_not_by_how_they_are_written() {
        let config = parse("").unwrap();
        assert!(config.same_head(&ModelConfig::new(config.arch, 75)));
        for text in [
            "input_norm = true",
            "projection = 128",
            "pooling = 'average-max'",
            "hidden = [512]",
            "classes = ['dead', 'alive']",
        ] {
            assert!(!config.same_head(&parse(text).unwrap()), "{text}");
        }
        // A flattened feature map ties the head to the input's size.
        let flat = parse("pooling = 'flatten'").unwrap();
        let mut larger = flat.clone();
        larger.input_size = 299;
        assert!(!flat.same_head(&larger));
        // Dropout leaves the layers as they are.
        assert!(config.same_head(&parse("dropout = 0.5").unwrap()));
    }
}
