//! Kernels for Burn's CPU backend `flex`.
//!
//! Burn's operations on that backend unfold a whole input, change layouts and pass over memory once
//! for each elementary operation. The kernels here do the same arithmetic in blocks that fit the
//! cache, with matrix products by the same `gemm` crate.
//!
//! Results are deterministic and do not depend on the number of threads.

mod activate;
mod buffers;
mod convolve;
mod gemm;
mod geometry;
mod im2col;
mod kernels;
mod normalize;
mod sums;
