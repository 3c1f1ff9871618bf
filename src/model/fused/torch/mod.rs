//! Kernels for Burn's backend on libtorch, and everything else that touches `tch`.
//!
//! Burn drives libtorch one elementary operation at a time. The kernels here call the operators
//! that PyTorch itself calls, forward and backward. `shim.cpp` binds those that `tch` lacks.
//!
//! Burn 0.23 drops its backend on libtorch; docs/devices.md describes what replaces it.
#![allow(
    deprecated,
    reason = "Burn marks its backend on libtorch as deprecated"
)]

mod kernels;
mod library;
mod shim;
mod tensors;
#[cfg(test)]
mod tests;
mod updates;

pub(crate) use library::{
    TorchPrecision, configure, cpu_device, cuda_device, cuda_devices, library_version, mps_device,
};
pub(crate) use tensors::upload;
pub(crate) use updates::{AdamConstants, adadelta, adam, collect_updates, is_torch, lerp, sgd};
