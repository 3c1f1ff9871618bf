//! The stem (first convolution) of an imported network, for any number of channels.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Distribution, Tensor};

use super::parameters::ModulePath;

/// Replaces the stem of `network` by one with `channels` inputs and random filters, unless it
/// already has this number.
///
/// `path` is the path of the stem's filters `[out, in, kh, kw]`. They are drawn uniformly from
/// ±√(1 / fan-in), like all convolutions of an imported network.
pub(super) fn with_channels<M: Module>(network: M, path: &str, channels: usize) -> M {
    network.map(&mut StemMapper {
        current: ModulePath::default(),
        stem: path,
        channels,
    })
}

struct StemMapper<'a> {
    current: ModulePath,
    stem: &'a str,
    channels: usize,
}

impl ModuleMapper for StemMapper<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.current.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.current.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let mut shape = param.lazy_shape();
        if self.current.name() != self.stem || shape[1] == self.channels {
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
