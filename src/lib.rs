//! Retrain ImageNet networks on four-channel fluorescence images, and score plates with them.
//!
//! The modules, in the order in which data flows through them:
//!
//! ```text
//! pretrained.onnx ─ graph, model ─▶ checkpoint ─ data, train ─▶ checkpoint ─ export ─▶ model.onnx
//!                                                                                        │
//!                                           predictions ◀─ score ◀─ imaging ◀─ images    │
//!                                                            ▲───────────────────────────┘
//! ```
//!
//! - [`graph`]: ONNX files, read with care, patched and matched; uses nothing of the rest.
//! - [`model`]: networks in Burn, and pretrained weights for them.
//! - [`imaging`], [`data`]: from files to batches.
//! - [`train`]: configs, the loop, optimizers, checkpoints.
//! - [`export`]: a trained network as one ONNX file.
//! - [`store`]: files in object stores and on web servers.
//! - [`score`]: that file over a folder of images, on ONNX Runtime or tract.
//! - `serve`: the same behind HTTP, for whoever sends images.
//! - [`metrics`], [`report`]: how good it is, in numbers and pictures.
//! - [`tracking`]: a training run on a server that shows many of them.
//! - [`synth`]: samples to try all this with; [`labels`], [`spec`], [`fsx`] and [`memory`]: what many
//!   use.
//! - [`cli`]: the `rgby` program, and everything's user.
//!
//! Without the default features `train` and `serve` there are only the modules that scoring needs.

pub mod cli;
pub mod data;
#[cfg(feature = "train")]
pub mod export;
pub mod fsx;
#[cfg(feature = "train")]
pub mod graph;
pub mod imaging;
pub mod labels;
pub mod memory;
pub mod metrics;
#[cfg(feature = "train")]
pub mod model;
mod panics;
pub mod report;
pub mod score;
#[cfg(feature = "serve")]
pub mod serve;
pub mod spec;
pub mod store;
pub mod synth;
#[cfg(feature = "train")]
pub mod tracking;
#[cfg(feature = "train")]
pub mod train;
