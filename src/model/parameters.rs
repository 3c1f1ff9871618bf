//! Names of parameters, and the ids and initial values derived from them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Shape, Tensor};
use sha2::{Digest, Sha256};

/// Sets the id of each parameter of a new network to a hash of its name, and draws its initial
/// values from `seed` and that id.
///
/// Burn's default ids are random. Optimizers store their state by id, so equal runs would write
/// different files. Burn also draws a parameter at its first use. Without a separate random stream
/// for each parameter, its values would depend on the order of use.
pub(super) fn init_parameters<M: Module>(network: M, seed: u64) -> M {
    let path = ModulePath::default();
    network.map(&mut ParameterInitializer { path, seed })
}

/// The current path of a mapper or visitor: field names, without the names of enum variants.
#[derive(Default)]
pub(super) struct ModulePath(Vec<(String, bool)>);

impl ModulePath {
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

/// Metadata of a parameter or running statistic. Its values may not be drawn yet.
pub(super) struct ParameterInfo {
    /// Path of fields in the code.
    pub path: String,
    pub shape: Shape,
    /// Whether it receives a gradient.
    pub trains: bool,
}

/// Returns all parameters and running statistics of a network.
pub(super) fn list_parameters<M: Module>(network: &M) -> Vec<ParameterInfo> {
    let mut collector = ParameterCollector::default();
    network.visit(&mut collector);
    collector.parameters
}

#[derive(Default)]
struct ParameterCollector {
    path: ModulePath,
    parameters: Vec<ParameterInfo>,
}

impl ModuleVisitor for ParameterCollector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.parameters.push(ParameterInfo {
            path: self.path.name(),
            shape: param.lazy_shape(),
            trains: param.is_require_grad(),
        });
    }
}

/// Returns the id of the parameter with this name.
fn id(name: &str) -> ParamId {
    let hash = Sha256::digest(name.as_bytes());
    let (words, _) = hash.as_slice().as_chunks::<8>();
    ParamId::from(u64::from_le_bytes(words[0]))
}

struct ParameterInitializer {
    path: ModulePath,
    seed: u64,
}

impl ModuleMapper for ParameterInitializer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.id = id(&self.path.name());
        if !param.is_initialized() {
            param.lazy_device().seed(self.seed ^ param.id.val());
            // Reading the values draws them.
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
    struct IdCollector(Vec<u64>);

    impl ModuleVisitor for IdCollector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id.val());
        }
    }

    fn ids(classifier: &Classifier) -> Vec<u64> {
        let mut ids = IdCollector::default();
        classifier.visit(&mut ids);
        ids.0
    }

    #[test]
    fn ids_are_reproducible_and_unique() {
        let mut config = ModelConfig::new(Arch::Plain, 16);
        config.input_norm = true;
        config.hidden = vec![4, 4];
        let device = Device::flex().autodiff();
        let first = ids(&Classifier::new(&config, 0, &device));
        assert_eq!(first, ids(&Classifier::new(&config, 1, &device)));
        // Inference mode has the same ids.
        assert_eq!(first, ids(&Classifier::new(&config, 1, &device).valid()));
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), first.len());
        // Eight convolutions with BatchNorm, the input's BatchNorm, and three dense layers.
        assert_eq!(first.len(), 8 * (2 + 4) + 4 + 3 * 2);
    }
}
