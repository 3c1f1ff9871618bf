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
//! # Scoring a folder
//!
//! An exported file says itself what it wants and what it answers. [`data::Images`] finds the
//! samples, a [`score::Runtime`] is ONNX Runtime or tract, and [`score::score()`] decodes and infers
//! side by side:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use rgby::data::Images;
//! use rgby::imaging::DecodeLimits;
//! use rgby::score::{Engine, ModelFile, OrtEngine, PipelineOptions, Runtime, RuntimeOptions, score};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = ModelFile::open(Path::new("model.onnx"))?;
//! let samples = Images::plain("test").find(&model.spec().preprocess.stains())?;
//! let runtime = Runtime::start(&RuntimeOptions::default())?;
//! let engine: Box<dyn Engine> = Box::new(OrtEngine::load(runtime, &model, 2)?);
//! let options = PipelineOptions {
//!     batch: 8,
//!     decode_threads: 2,
//!     limits: DecodeLimits::default(),
//!     whole_batches: false,
//! };
//! let table = score(&mut [engine], &samples, &options, &|done| println!("{done}"))?;
//! for (id, probabilities) in table.ids.iter().zip(&table.probabilities) {
//!     println!("{id}: {probabilities:?}"); // `None` for a sample among `table.failures`
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Training
//!
//! [`model::Pretrained`] puts the weights of an ONNX export into a [`model::Classifier`], a
//! [`train::Checkpoint`] keeps that in a folder, [`train::train()`] makes a run of a [`train::Job`],
//! and [`export::export()`] writes the file to score with:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use rgby::graph::{self, surgery::Filter};
//! use rgby::model::{Classifier, ModelConfig, Pretrained};
//! use rgby::train::TrainDevice;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pretrained = Pretrained::new(graph::read(Path::new("resnet50.onnx"))?)?;
//! let arch = pretrained.arch()?; // by the graph's structure, not by names
//! let config = ModelConfig::new(arch, 224);
//! let random = Classifier::new(&config, 0, &TrainDevice::Cpu.open()?);
//! let stem = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
//! let (classifier, report) = pretrained.load(arch, &stem, random)?;
//! println!("{} tensors bit for bit; {classifier:?}", report.matched);
//! # Ok(())
//! # }
//! ```
//!
//! The programs in `examples/` go on from here: `convert`, `train`, `score`, and `serve`, which puts
//! the server's routes into an axum application.
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
