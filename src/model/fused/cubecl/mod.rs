//! Kernels for Burn's GPU backend, which compiles them by CubeCL for CUDA, Vulkan, Metal and
//! DirectX 12.
//!
//! Untuned, Burn computes every convolution directly: each thread reads the window of an output.
//! Here a convolution is a matrix product, or Burn's implicit GEMM where the device has matrix
//! instructions. `rule` chooses by shape and device; nothing is measured.
//!
//! Results are deterministic on the same device.

mod convolve;
mod kernels;
mod rule;
#[cfg(all(test, feature = "wgpu"))]
mod tests;
mod tuning;
mod unfold;

pub use tuning::autotune;
