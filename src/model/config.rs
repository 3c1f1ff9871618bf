//! The table `[model]` of a config: network, input and classes.

use serde::{Deserialize, Serialize};

use super::Arch;
use crate::imaging::CHANNELS;
use crate::labels::hpa_classes;

/// Maximum number of input channels.
const MAX_CHANNELS: usize = 64;

/// The table `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub arch: Arch,
    /// Side of the square input in pixels.
    pub input_size: u32,
    /// Stains, or sums of them, in input order.
    #[serde(default = "default_channels")]
    pub channels: Vec<String>,
    /// Class names, in the order of the outputs.
    #[serde(default = "hpa_classes")]
    pub classes: Vec<String>,
    /// Whether a `BatchNorm` with the constants of Keras normalises the input channels.
    #[serde(default)]
    pub input_norm: bool,
    /// Width of a 1×1 convolution with ReLU on the feature map, before pooling; none if absent.
    pub projection: Option<usize>,
    /// How the feature map becomes a vector; depends on the network if absent.
    pub pooling: Option<Pooling>,
    /// Fraction of the pooled features dropped in training, 0–1.
    #[serde(default)]
    pub dropout: f64,
    /// Widths of dense ReLU layers between features and output layer.
    #[serde(default)]
    pub hidden: Vec<usize>,
    /// Fraction of the outputs of each hidden layer dropped in training, 0–1.
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
    /// All values: `F·h·w`, so that the weights depend on the input size.
    Flatten,
}

/// One number for all hidden layers, or one per layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "model.hidden_dropout takes a number, or a list with one number per layer of \
                 model.hidden"
)]
pub enum PerLayer {
    All(f64),
    Each(Vec<f64>),
}

impl Default for PerLayer {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl PerLayer {
    /// Returns one number for each of `layers` layers; none if a list has another length.
    fn each(&self, layers: usize) -> Option<Vec<f64>> {
        match self {
            Self::All(value) => Some(vec![*value; layers]),
            Self::Each(values) => (values.len() == layers).then(|| values.clone()),
        }
    }
}

impl ModelConfig {
    /// Returns the config of a network with one dense layer on its features, for the 28 classes of
    /// the Human Protein Atlas.
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

    /// Returns the configured pooling; by default the average for networks with a pretrained form,
    /// and the whole feature map for the others.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling.unwrap_or(if self.arch.imported().is_some() {
            Pooling::Average
        } else {
            Pooling::Flatten
        })
    }

    /// Returns the number of channels and the side of the input.
    #[must_use]
    pub fn image_shape(&self) -> (usize, usize) {
        (self.channels.len(), self.input_size as usize)
    }

    /// Returns the fraction of outputs dropped after each hidden layer, in order.
    #[must_use]
    pub fn hidden_dropout(&self) -> Vec<f64> {
        let layers = self.hidden.len();
        let fractions = self.hidden_dropout.each(layers);
        // Only an invalid config has another number of values.
        fractions.unwrap_or_else(|| vec![0.0; layers])
    }

    /// Returns the number of values per image of [`head_input`](super::Classifier::head_input).
    #[must_use]
    pub fn head_input_len(&self) -> usize {
        let (features, side) = self.arch.feature_map(self.input_size);
        match self.projection {
            Some(_) => features * side * side,
            None => self.pooled_width(),
        }
    }

    /// Returns the width of the input of the first dense layer.
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

    /// Returns whether all layers after the backbone have the same names, shapes and meaning, so
    /// that a checkpoint of one config can be loaded completely into the other.
    #[must_use]
    pub fn same_head(&self, other: &Self) -> bool {
        self.classes == other.classes
            && self.hidden == other.hidden
            && self.projection == other.projection
            && self.input_norm == other.input_norm
            && self.pooling() == other.pooling()
            && self.pooled_width() == other.pooled_width()
    }

    /// Validates the config and fills in every default.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn resolved(mut self) -> Result<Self, String> {
        self.validate()?;
        self.pooling = Some(self.pooling());
        Ok(self)
    }

    /// Validates the values.
    ///
    /// # Errors
    ///
    /// A message that names the key and the accepted values.
    pub fn validate(&self) -> Result<(), String> {
        let smallest = self.arch.min_input_size();
        if !(smallest..=4096).contains(&self.input_size) {
            return Err(format!(
                "model.input_size is {}; {} takes {smallest} to 4096 (model.arch)",
                self.input_size,
                self.arch.name()
            ));
        }
        if !(1..=MAX_CHANNELS).contains(&self.channels.len()) {
            return Err(format!(
                "model.channels has {} entries; use 1 to {MAX_CHANNELS}",
                self.channels.len()
            ));
        }
        if self.classes.is_empty() {
            return Err("model.classes is empty; name at least one class".into());
        }
        if self.hidden.contains(&0) {
            return Err("model.hidden contains 0; a layer needs at least one unit".into());
        }
        if self.projection == Some(0) {
            return Err("model.projection is 0; it must be at least 1\nhint: leave it out for no projection".into());
        }
        self.validate_dropout()
    }

    fn validate_dropout(&self) -> Result<(), String> {
        let layers = self.hidden.len();
        let hidden = match &self.hidden_dropout {
            PerLayer::All(fraction) => vec![*fraction],
            PerLayer::Each(fractions) if fractions.len() == layers => fractions.clone(),
            PerLayer::Each(fractions) => {
                return Err(format!(
                    "model.hidden_dropout has {} values for {layers} hidden layers (model.hidden)\n\
                     hint: give one number, or one per layer",
                    fractions.len()
                ));
            }
        };
        let hidden = hidden
            .into_iter()
            .map(|fraction| ("hidden_dropout", fraction));
        let mut fractions = std::iter::once(("dropout", self.dropout)).chain(hidden);
        match fractions.find(|(_, fraction)| !(0.0..1.0).contains(fraction)) {
            Some((field, fraction)) => Err(format!(
                "model.{field} is {fraction}; it must be at least 0 and below 1"
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
    fn defaults_depend_on_the_network() {
        let config = parse("").unwrap();
        assert_eq!(config.pooling, Some(Pooling::Average));
        assert_eq!(config.pooled_width(), 1536);
        let baseline = ModelConfig::new(Arch::Baseline, 139);
        assert_eq!(baseline.pooling(), Pooling::Flatten);
        assert_eq!(baseline.pooled_width(), 32 * 67 * 67);
        let plain = ModelConfig::new(Arch::Plain, 256);
        assert_eq!(plain.pooled_width(), 256 * 32 * 32);
        // Writing and reading is lossless.
        let text = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<ModelConfig>(&text).unwrap(), config);
    }

    #[test]
    fn computes_the_input_width_of_the_first_dense_layer() {
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
    fn hidden_dropout_accepts_a_number_or_a_list() {
        let shares = |text: &str| parse(text).map(|config| config.hidden_dropout());
        let hidden = "hidden = [512, 512]\n";
        assert_eq!(shares(hidden).unwrap(), [0.0, 0.0]);
        let one = shares(&format!("{hidden}hidden_dropout = 0.25")).unwrap();
        assert_eq!(one, [0.25, 0.25]);
        let list = shares(&format!("{hidden}hidden_dropout = [0, 0.25]")).unwrap();
        assert_eq!(list, [0.0, 0.25]);
    }

    #[test]
    fn errors_name_the_key() {
        let many = format!("channels = {:?}", vec!["x"; 65]);
        for (text, expected) in [
            ("projection = 0", "model.projection is 0"),
            ("pooling = 'max'", "average-max"),
            ("dropout = 1", "model.dropout is 1"),
            ("hidden_dropout = 1.5", "model.hidden_dropout is 1.5"),
            (
                "hidden_dropout = [0.1]",
                "model.hidden_dropout has 1 values for 0 hidden layers",
            ),
            ("hidden_dropout = 'half'", "takes a number, or a list"),
            ("hidden = [0]", "model.hidden contains 0"),
            ("channels = []", "model.channels has 0 entries"),
            (&many, "use 1 to 64"),
            ("classes = []", "model.classes is empty"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn compares_heads_by_layers_and_classes() {
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
        // With a flattened feature map the head depends on the input size.
        let flat = parse("pooling = 'flatten'").unwrap();
        let mut larger = flat.clone();
        larger.input_size = 299;
        assert!(!flat.same_head(&larger));
        // Dropout does not change the layers.
        assert!(config.same_head(&parse("dropout = 0.5").unwrap()));
    }
}
