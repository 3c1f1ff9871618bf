//! Retrain ImageNet networks on multi-channel fluorescence images, and score plates with them.
//!
//! This is the library behind the program `rgby`. It converts an ONNX export of a network to a
//! trainable checkpoint. It trains the checkpoint and exports it as one ONNX file with classes,
//! thresholds and preprocessing. It scores images with that file:
//!
//! ```text
//! pretrained.onnx ─ graph, model ─▶ checkpoint ─ data, train ─▶ checkpoint ─ export ─▶ model.onnx
//!                                                                                        │
//!                                    predictions ◀─ score, serve ◀─ imaging ◀─ images    │
//!                                                        ▲───────────────────────────────┘
//! ```
//!
//! # Tasks
//!
//! 1. **Convert**: [`graph::read`] reads an untrusted ONNX file. [`model::Pretrained`] matches its
//!    weights by the structure of the graph and loads them into a [`model::Classifier`].
//!    [`train::Checkpoint`] stores the classifier in a directory.
//! 2. **Train**: [`train::Config`] is the configuration, [`data::Dataset`] the samples and labels.
//!    [`train::train()`] runs a [`train::TrainJob`]. [`export::export()`] writes the best
//!    checkpoint of the run to one ONNX file.
//! 3. **Score**: [`score::run()`] scores the images of a [`score::ScoreConfig`] and writes the
//!    results to files. [`score::score_samples()`] decodes and infers in parallel and returns the
//!    results in memory. If there are labels, [`eval::run()`] evaluates them.
//! 4. **Serve**: [`serve::run()`] runs the whole server. [`serve::rest::router`] returns its routes
//!    for an axum application.
//!
//! Each of the programs `convert`, `train`, `score` and `serve` in `examples/` does one of these
//! tasks.
//!
//! # Main types
//!
//! - [`model_metadata::ModelSpec`]: classes, thresholds and preprocessing, part of each checkpoint
//!   and exported file.
//! - [`imaging::Preprocess`]: from image files to a network's input, identical in training, scoring
//!   and serving.
//! - [`score::Engine`]: the trait of everything that runs a network.
//! - [`train::TrainingObserver`]: receives the progress of a run.
//!
//! The page of each module explains how its parts work together. `docs/ARCHITECTURE.md` lists the
//! modules with their dependencies, and explains the design.
//!
//! Without the default features `train` and `serve`, the library contains only what scoring and
//! evaluation need.
//!
//! # Scoring a folder
//!
//! An exported file contains its preprocessing, classes and thresholds:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use rgby::data::Images;
//! use rgby::imaging::DecodeLimits;
//! use rgby::score::{Engine, ModelFile, OrtEngine, PipelineOptions, Runtime, RuntimeOptions, score_samples};
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
//! let table = score_samples(&mut [engine], &samples, &options, &|done| println!("{done}"))?;
//! for (id, probabilities) in table.ids.iter().zip(&table.probabilities) {
//!     println!("{id}: {probabilities:?}"); // `None` if the sample is in `table.failures`
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Converting a pretrained network
//!
//! The backbone's weights come from the file, with a stem for four channels. The head is new:
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
//! let arch = pretrained.arch()?; // matched by the graph's structure, not by names
//! let config = ModelConfig::new(arch, 224);
//! let random = Classifier::new(&config, 0, &TrainDevice::Cpu.open()?);
//! let stem = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
//! let (classifier, report) = pretrained.load(arch, &stem, random)?;
//! println!("{} bit-identical tensors; {classifier:?}", report.matched);
//! # Ok(())
//! # }
//! ```

pub mod cli;
#[cfg(feature = "train")]
pub mod convert;
pub mod eval;
#[cfg(feature = "train")]
pub mod export;
#[cfg(feature = "train")]
pub mod inspect;
#[cfg(feature = "train")]
pub mod model;
pub mod report;
#[cfg(feature = "train")]
pub mod tracking;
#[cfg(feature = "train")]
pub mod train;

pub use rgby_common::{atomic_file, labels, memory, observer};
pub use rgby_data as data;
pub use rgby_graph as graph;
pub use rgby_imaging as imaging;
pub use rgby_metrics as metrics;
pub use rgby_score as score;
pub use rgby_score::model_metadata;
#[cfg(feature = "serve")]
pub use rgby_serve as serve;
pub use rgby_store as store;
pub use rgby_synth as synth;
