//! Parts of a network that training leaves as they are.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::Classifier;
use super::identity::{Path, parameters};

/// Most names that an error lists.
const LISTED: usize = 12;

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` names no parameters of the network; {nearest}")]
pub struct FreezeError {
    /// What was asked for.
    pub pattern: String,
    /// What there is.
    pub nearest: String,
}

/// Freezes the parameters whose names begin with one of `patterns`; all others train.
///
/// Names are those of an exported file: `backbone.` and the pretrained file's name for a weight of
/// an imported network (`backbone.layer1.0.conv1.weight`), the fields' for the others
/// (`head.hidden.0.weight`, `input_norm.gamma`). A pattern ends where a part of a name does:
/// `backbone.layer1` is not the beginning of `backbone.layer10`.
///
/// Frozen parameters take no gradient, so that no optimizer changes them, and nothing is computed
/// backwards through layers before which all is frozen. A `BatchNorm` whose scale is frozen
/// normalises by its running statistics and leaves them alone. Dropout goes on dropping.
///
/// It holds through optimizer steps, and through loading into the network. What was frozen before
/// is of no account: freezing by an empty list unfreezes everything.
///
/// # Errors
///
/// [`FreezeError`]: a pattern names nothing.
pub fn freeze(classifier: Classifier, patterns: &[String]) -> Result<Classifier, FreezeError> {
    let names = ParameterNames::new(&classifier);
    let found: Vec<String> = parameters(&classifier)
        .iter()
        .filter_map(|parameter| names.of(&parameter.path))
        .collect();
    for pattern in patterns {
        if !found.iter().any(|name| covers(pattern, name)) {
            return Err(FreezeError {
                pattern: pattern.clone(),
                nearest: nearest(pattern, &found),
            });
        }
    }
    Ok(classifier.map(&mut Freezer {
        at: Path::default(),
        names: &names,
        patterns,
    }))
}

/// From paths in the code to names that people know.
struct ParameterNames(HashMap<String, String>);

impl ParameterNames {
    fn new(classifier: &Classifier) -> Self {
        let weights = classifier.arch().imported().map_or(&[][..], |i| i.weights);
        let known = |part: &str| format!("backbone.{part}");
        let pairs = weights.iter();
        Self(
            pairs
                .map(|(path, initializer)| (known(path), known(initializer)))
                .collect(),
        )
    }

    /// The name of the parameter at `path`; none for a statistic, which is not trained anyway.
    fn of(&self, path: &str) -> Option<String> {
        let is_statistic = path.ends_with(".running_mean") || path.ends_with(".running_var");
        let name = self.0.get(path).map_or(path, String::as_str);
        (!is_statistic).then(|| name.to_owned())
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    name.strip_prefix(pattern)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What the longest known beginning of `pattern` holds.
fn nearest(pattern: &str, names: &[String]) -> String {
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
            let holder = if known.is_empty() { "it" } else { known };
            let more = parts.len().saturating_sub(LISTED);
            parts.truncate(LISTED);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return format!("{holder} has {}{more}", parts.join(", "));
        }
        if known.is_empty() {
            return "it has none".into();
        }
    }
}

struct Freezer<'a> {
    at: Path,
    names: &'a ParameterNames,
    patterns: &'a [String],
}

impl ModuleMapper for Freezer<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.at.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(name) = self.names.of(&self.at.name()) else {
            return param;
        };
        let frozen = self.patterns.iter().any(|pattern| covers(pattern, &name));
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

    /// Names of what three steps changed.
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
        // BatchNorm takes away what the bias before it adds: that moves by rounding, if at all.
        after.retain(|name, bits| !name.ends_with("conv.bias") && before[name] != *bits);
        (classifier, after.into_keys().collect())
    }

    #[test]
    fn frozen_parts_stay_as_they_are_to_the_bit_until_they_are_unfrozen() {
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
    fn a_frozen_network_answers_in_training_as_in_inference() {
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
        // What is loaded into it, and what is made of its inference form, is frozen as it was.
        let (_, names) = changed(classifier.valid().train(), &config, &mut optimizer);
        assert!(names.iter().all(|name| name.starts_with("head.")));
    }

    #[test]
    fn weights_of_an_imported_network_have_the_names_of_its_file() {
        let config = ModelConfig::new(Arch::ResNet50, 32);
        let device = Device::flex().autodiff();
        let patterns = list(&["backbone.conv1", "backbone.bn1", "backbone.layer1"]);
        let classifier = freeze(Classifier::new(&config, 0, &device), &patterns).unwrap();
        let names = ParameterNames::new(&classifier);
        let parameters = parameters(&classifier);
        let frozen = parameters.iter().filter(|parameter| !parameter.trains);
        let frozen: Vec<String> = frozen.filter_map(|p| names.of(&p.path)).collect();
        assert!(frozen.contains(&"backbone.layer1.2.bn3.weight".to_owned()));
        // The stem and its BatchNorm, ten convolutions with theirs.
        assert_eq!(frozen.len(), 11 * 3);
        assert!(frozen.iter().all(|name| !name.contains("layer2")));
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error_that_lists_what_there_is() {
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
                "`back` names no parameters of the network; it has backbone, head",
            ),
            ("", "it has backbone, head"),
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
