//! Conversions between tensors of Burn and libtorch.

use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::backend::{
    BackendTensor, DispatchAutodiffContext, DispatchDevice, DispatchTensor, DispatchTensorKind,
};
use burn::tensor::{Device, Tensor};

use super::shim;

/// Returns libtorch's tensor; `None` on another backend or with gradients.
pub(super) fn into_torch<const D: usize>(tensor: Tensor<D>) -> Option<TchTensor> {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::LibTorch(BackendTensor::Float(tensor)) => Some(tensor),
        _ => None,
    }
}

/// Returns Burn's tensor, without gradients.
pub(super) fn from_torch<const D: usize>(tensor: TchTensor) -> Tensor<D> {
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::LibTorch(BackendTensor::Float(tensor)),
        autodiff: DispatchAutodiffContext::Disabled,
    })
}

/// Returns libtorch's device; `None` for another backend.
pub(super) fn torch_device(device: &Device) -> Option<LibTorchDevice> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::LibTorch(device) => Some(*device),
        #[allow(
            unreachable_patterns,
            reason = "the features select which backends exist"
        )]
        _ => None,
    }
}

/// Copies values to a device of libtorch, without waiting for a GPU. `None` on another backend.
pub(crate) fn upload<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Option<Tensor<D>> {
    let target = torch_device(device)?;
    let shape = shape.map(|size| size as i64);
    let tensor: Tensor<D> = from_torch(TchTensor::new(shim::upload(values, &shape, target.into())));
    Some(match device.gradient_checkpointing_strategy() {
        Some(strategy) => tensor
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    })
}
