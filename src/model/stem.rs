//! The first convolution of an imported network, for any number of channels.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Distribution, Tensor};

use super::identity::Path;

/// Gives `network` a stem of `channels` inputs with random filters, where it has another number.
///
/// `path` names the stem's filters `[out, in, kh, kw]`. They are drawn uniformly from
/// ±√(1 / fan-in), as all convolutions of an imported network are.
pub(super) fn with_channels<M: Module>(network: M, path: &str, channels: usize) -> M {
    network.map(&mut StemMapper {
        at: Path::default(),
        path,
        channels,
    })
}

struct StemMapper<'a> {
    at: Path,
    path: &'a str,
    channels: usize,
}

impl ModuleMapper for StemMapper<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.at.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let mut shape = param.lazy_shape();
        if self.at.name() != self.path || shape[1] == self.channels {
            return param;
        }
        shape[1] = self.channels;
        let bound = (1.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        let filters = Distribution::Uniform(-bound, bound);
        let dims = shape.clone();
        Param::uninitialized(
            ParamId::new(),
            move |device, require_grad| {
                Tensor::random(dims, filters, device).set_require_grad(require_grad)
            },
            param.lazy_device(),
            true,
            shape,
        )
    }
}
