//! Freezing of parameters.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::Classifier;
use super::parameters::{ModulePath, list_parameters};

/// Maximum number of names that an error lists.
const MAX_LISTED: usize = 12;

/// A freeze pattern that matches no parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` matches no parameter of the network\nhint: {available}")]
pub struct FreezeError {
    pub pattern: String,
    /// Names below the longest prefix of `pattern` that exists.
    pub available: String,
}

/// Freezes the parameters whose names begin with one of `patterns`; all others train.
///
/// The names are those in an exported file. A weight of an imported network is called `backbone.`
/// plus its name in the pretrained file (`backbone.layer1.0.conv1.weight`). Other parameters have
/// the path of fields (`head.hidden.0.weight`, `input_norm.gamma`). A pattern matches whole parts
/// of a name: `backbone.layer1` does not match `backbone.layer10`.
///
/// Frozen parameters receive no gradient, so no optimizer changes them. The backward pass stops at
/// layers before which everything is frozen. A `BatchNorm` with a frozen scale normalizes by its
/// running statistics and does not update them. Dropout stays active.
///
/// Parameters stay frozen through optimizer steps and when weights are loaded. Each call replaces
/// the previous patterns: an empty list unfreezes everything.
///
/// # Errors
///
/// [`FreezeError`] if a pattern matches no parameter.
pub fn freeze(classifier: Classifier, patterns: &[String]) -> Result<Classifier, FreezeError> {
    let exported = ParameterNames::new(&classifier);
    let names: Vec<String> = list_parameters(&classifier)
        .iter()
        .filter_map(|parameter| exported.name_of(&parameter.path))
        .collect();
    for pattern in patterns {
        if !names.iter().any(|name| matches(pattern, name)) {
            return Err(FreezeError {
                pattern: pattern.clone(),
                available: available(pattern, &names),
            });
        }
    }
    Ok(classifier.map(&mut Freezer {
        path: ModulePath::default(),
        names: &exported,
        patterns,
    }))
}

/// Maps paths in the code to names in the exported file.
struct ParameterNames(HashMap<String, String>);

impl ParameterNames {
    fn new(classifier: &Classifier) -> Self {
        let weights = classifier.arch().imported().map_or(&[][..], |i| i.weights);
        let in_backbone = |part: &str| format!("backbone.{part}");
        let pairs = weights.iter();
        Self(
            pairs
                .map(|(path, initializer)| (in_backbone(path), in_backbone(initializer)))
                .collect(),
        )
    }

    /// Returns the name of the parameter at `path`; `None` for a running statistic, which never
    /// trains.
    fn name_of(&self, path: &str) -> Option<String> {
        let is_statistic = path.ends_with(".running_mean") || path.ends_with(".running_var");
        let name = self.0.get(path).map_or(path, String::as_str);
        (!is_statistic).then(|| name.to_owned())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    name.strip_prefix(pattern)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Lists the names below the longest prefix of `pattern` that exists.
fn available(pattern: &str, names: &[String]) -> String {
    let mut known = pattern;
    loop {
        known = known.rsplit_once('.').map_or("", |(parent, _)| parent);
        let mut parts: Vec<&str> = Vec::new();
        for name in names {
            let below = if known.is_empty() {
                Some(name.as_str())
            } else {
                let rest = name.strip_prefix(known);
                rest.and_then(|rest| rest.strip_prefix('.'))
            };
            let part = below.and_then(|rest| rest.split('.').next());
            parts.extend(part.filter(|part| !parts.contains(part)));
        }
        if !parts.is_empty() {
            let holder = if known.is_empty() {
                "the network"
            } else {
                known
            };
            let more = parts.len().saturating_sub(MAX_LISTED);
            parts.truncate(MAX_LISTED);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return format!("{holder} has {}{more}", parts.join(", "));
        }
        if known.is_empty() {
            return "the network has no parameters".into();
        }
    }
}

struct Freezer<'a> {
    path: ModulePath,
    names: &'a ParameterNames,
    patterns: &'a [String],
}

impl ModuleMapper for Freezer<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(name) = self.names.name_of(&self.path.name()) else {
            return param;
        };
        let frozen = self.patterns.iter().any(|pattern| matches(pattern, &name));
        param.set_require_grad(!frozen)
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::{AdamWConfig, ModuleOptimizer};
    use burn::tensor::Device;

    use super::*;
    use crate::model::testing::{bits, images, small, step};
    use crate::model::{Arch, ModelConfig};
    use crate::train::AdadeltaConfig;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    }

    fn optimizers() -> [ModuleOptimizer; 2] {
        let adadelta = AdadeltaConfig {
            rho: 0.9,
            epsilon: 1e-6,
        };
        let decaying = AdamWConfig::new().with_weight_decay(0.1);
        [ModuleOptimizer::from(adadelta.build()), decaying.init()]
    }

    /// Trains three steps and returns the names of the tensors that changed.
    fn changed(
        mut classifier: Classifier,
        config: &ModelConfig,
        optimizer: &mut ModuleOptimizer,
    ) -> (Classifier, Vec<String>) {
        let before = bits(&classifier);
        for seed in 0..3 {
            classifier = step(classifier, config, optimizer, seed);
        }
        let mut after = bits(&classifier);
        // BatchNorm cancels the bias before it, which changes only by rounding errors.
        after.retain(|name, bits| !name.ends_with("conv.bias") && before[name] != *bits);
        (classifier, after.into_keys().collect())
    }

    #[test]
    fn frozen_parts_stay_bit_identical_until_unfrozen() {
        let mut config = small();
        config.input_norm = true;
        for mut optimizer in optimizers() {
            let device = Device::flex().autodiff();
            let classifier = Classifier::new(&config, 0, &device);
            let (classifier, all) = changed(classifier, &config, &mut optimizer);
            assert!(all.contains(&"input_norm.running_mean".to_owned()));
            assert!(all.contains(&"backbone.stages.0.0.conv.weight".to_owned()));

            let patterns = list(&["backbone", "input_norm", "head.hidden"]);
            let classifier = freeze(classifier, &patterns).unwrap();
            let (classifier, head) = changed(classifier, &config, &mut optimizer);
            assert_eq!(head, ["head.output.bias", "head.output.weight"]);

            let classifier = freeze(classifier, &list(&["head.output"])).unwrap();
            let (classifier, rest) = changed(classifier, &config, &mut optimizer);
            assert!(rest.iter().all(|name| !name.starts_with("head.output")));
            assert!(rest.contains(&"backbone.stages.0.0.norm.running_var".to_owned()));

            let classifier = freeze(classifier, &[]).unwrap();
            assert_eq!(changed(classifier, &config, &mut optimizer).1, all);
        }
    }

    #[test]
    fn gradients_pass_through_a_frozen_middle() {
        let config = small();
        let mut optimizer = optimizers()[1].clone();
        let classifier = Classifier::new(&config, 0, &Device::flex().autodiff());
        let classifier = freeze(classifier, &list(&["backbone.stages.1"])).unwrap();
        let (_, names) = changed(classifier, &config, &mut optimizer);
        assert!(names.contains(&"backbone.stages.0.0.conv.weight".to_owned()));
        assert!(names.contains(&"backbone.stages.2.3.norm.running_mean".to_owned()));
        assert!(names.iter().all(|name| !name.contains("stages.1.")));
    }

    #[test]
    fn frozen_backbone_gives_the_same_outputs_in_training_and_inference() {
        let config = small();
        let device = Device::flex().autodiff();
        let mut optimizer = optimizers()[1].clone();
        let classifier = Classifier::new(&config, 0, &device);
        let (classifier, _) = changed(classifier, &config, &mut optimizer);
        let classifier = freeze(classifier, &list(&["backbone"])).unwrap();
        let training = classifier.logits(images(&config, 3, 9, &device));
        let plain = device.without_autodiff();
        let inference = classifier.valid().logits(images(&config, 3, 9, &plain));
        assert_eq!(training.into_data(), inference.into_data());
        // The inference form and a network made from it stay frozen.
        let (_, names) = changed(classifier.valid().train(), &config, &mut optimizer);
        assert!(names.iter().all(|name| name.starts_with("head.")));
    }

    #[test]
    fn imported_weights_have_the_names_of_the_pretrained_file() {
        let config = ModelConfig::new(Arch::ResNet50, 32);
        let device = Device::flex().autodiff();
        let patterns = list(&["backbone.conv1", "backbone.bn1", "backbone.layer1"]);
        let classifier = freeze(Classifier::new(&config, 0, &device), &patterns).unwrap();
        let names = ParameterNames::new(&classifier);
        let parameters = list_parameters(&classifier);
        let frozen = parameters.iter().filter(|parameter| !parameter.trains);
        let frozen: Vec<String> = frozen.filter_map(|p| names.name_of(&p.path)).collect();
        assert!(frozen.contains(&"backbone.layer1.2.bn3.weight".to_owned()));
        // The stem and ten convolutions, each with BatchNorm.
        assert_eq!(frozen.len(), 11 * 3);
        assert!(frozen.iter().all(|name| !name.contains("layer2")));
    }

    #[test]
    fn error_for_an_unknown_name_lists_available_names() {
        let device = Device::flex();
        let error = |config: &ModelConfig, pattern: &str| {
            let classifier = Classifier::new(config, 0, &device);
            freeze(classifier, &list(&[pattern]))
                .unwrap_err()
                .to_string()
        };
        for (pattern, wanted) in [
            (
                "back",
                "the pattern `back` matches no parameter of the network\nhint: the network has backbone, head",
            ),
            ("", "the network has backbone, head"),
            ("head.hidden.1", "head.hidden has 0"),
            ("head.hidden.0.weights", "head.hidden.0 has weight, bias"),
            ("backbone.stages.0.0.norm.running_mean", "has gamma, beta"),
        ] {
            let message = error(&small(), pattern);
            assert!(message.contains(wanted), "{pattern}: {message}");
        }
        let resnet = ModelConfig::new(Arch::ResNet50, 32);
        let message = error(&resnet, "backbone.layer5");
        assert!(message.contains("backbone has conv1"), "{message}");
        assert!(message.contains("layer4"), "{message}");
    }
}
