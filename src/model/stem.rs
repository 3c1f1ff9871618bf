//! The first convolution of an imported network, for any number of channels.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Distribution, Tensor};

/// Gives `network` a stem of `channels` inputs with random filters, where it has another number.
///
/// `path` names the stem's filters `[out, in, kh, kw]`. They are drawn uniformly from
/// ±√(1 / fan-in), as all convolutions of an imported network are.
pub(super) fn with_channels<M: Module>(network: M, path: &str, channels: usize) -> M {
    network.map(&mut StemMapper {
        at: Vec::new(),
        path,
        channels,
    })
}

struct StemMapper<'a> {
    at: Vec<String>,
    path: &'a str,
    channels: usize,
}

impl ModuleMapper for StemMapper<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.at.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.at.join(".") != self.path {
            return param;
        }
        let mut shape = param.dims();
        if shape[1] == self.channels {
            return param;
        }
        shape[1] = self.channels;
        let bound = (1.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        let filters = Distribution::Uniform(-bound, bound);
        Param::from_tensor(Tensor::random(shape, filters, &param.device()))
    }
}
