//! The names of parameters, and the identities and random values that follow from them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Shape, Tensor};
use sha2::{Digest, Sha256};

/// Gives each parameter of a new network the identity of its name, and draws its random values
/// from `seed` and that name.
///
/// Burn's own identities are random. Optimizers keep their state by them, so that equal runs would
/// write unequal files. And Burn draws a parameter when it is first used: without a stream for each
/// of them, its values would depend on what was used before.
pub(super) fn identify<M: Module>(network: M, seed: u64) -> M {
    let at = Path::default();
    network.map(&mut Identify { at, seed })
}

/// Where a mapper or visitor is: names of fields, without those of enum variants.
#[derive(Default)]
pub(super) struct Path(Vec<(String, bool)>);

impl Path {
    pub(super) fn enter(&mut self, name: &str, container_type: &str) {
        let is_variant = container_type.starts_with("Enum:");
        self.0.push((name.to_owned(), is_variant));
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    pub(super) fn name(&self) -> String {
        let fields = self.0.iter().filter(|(_, is_variant)| !is_variant);
        let names: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }
}

/// What there is to know of a parameter or statistic without its values, which may not be drawn yet.
pub(super) struct Parameter {
    /// Its name in the code.
    pub path: String,
    pub shape: Shape,
    /// Whether it takes a gradient.
    pub trains: bool,
}

/// All parameters and statistics of a network.
pub(super) fn parameters<M: Module>(network: &M) -> Vec<Parameter> {
    let mut list = List::default();
    network.visit(&mut list);
    list.found
}

#[derive(Default)]
struct List {
    at: Path,
    found: Vec<Parameter>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.at.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Parameter {
            path: self.at.name(),
            shape: param.lazy_shape(),
            trains: param.is_require_grad(),
        });
    }
}

/// The identity of the parameter of that name.
fn id(name: &str) -> ParamId {
    let hash = Sha256::digest(name.as_bytes());
    let (words, _) = hash.as_slice().as_chunks::<8>();
    ParamId::from(u64::from_le_bytes(words[0]))
}

struct Identify {
    at: Path,
    seed: u64,
}

impl ModuleMapper for Identify {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.at.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.id = id(&self.at.name());
        if !param.is_initialized() {
            param.lazy_device().seed(self.seed ^ param.id.val());
            // Looking at the values draws them.
            let _ = param.val();
        }
        param
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::{Arch, Classifier, ModelConfig};

    #[derive(Default)]
    struct Ids(Vec<u64>);

    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id.val());
        }
    }

    fn ids(classifier: &Classifier) -> Vec<u64> {
        let mut ids = Ids::default();
        classifier.visit(&mut ids);
        ids.0
    }

    #[test]
    fn equal_networks_have_equal_identities_and_no_two_parameters_share_one() {
        let mut config = ModelConfig::new(Arch::Plain, 16);
        config.input_norm = true;
        config.hidden = vec![4, 4];
        let device = Device::flex().autodiff();
        let first = ids(&Classifier::new(&config, 0, &device));
        assert_eq!(first, ids(&Classifier::new(&config, 1, &device)));
        // Inference has the same ones.
        assert_eq!(first, ids(&Classifier::new(&config, 1, &device).valid()));
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), first.len());
        // Eight convolutions with BatchNorm, the input's BatchNorm, three dense layers.
        assert_eq!(first.len(), 8 * (2 + 4) + 4 + 3 * 2);
    }
}
