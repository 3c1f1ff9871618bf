//! Retrain ImageNet networks on four-channel fluorescence images, and score plates with them.
//!
//! This is what the program `rgby` is made of, for programs of one's own and for whoever carries it
//! on. An ONNX export of a network becomes a checkpoint to train from, a checkpoint becomes one ONNX
//! file that knows its classes, thresholds and preprocessing, and that file scores images:
//!
//! ```text
//! pretrained.onnx ─ graph, model ─▶ checkpoint ─ data, train ─▶ checkpoint ─ export ─▶ model.onnx
//!                                                                                        │
//!                                    predictions ◀─ score, serve ◀─ imaging ◀─ images    │
//!                                                        ▲───────────────────────────────┘
//! ```
//!
//! # Four things to do with it
//!
//! 1. **Convert**: [`graph::read`] reads an export and trusts nothing in it, [`model::Pretrained`]
//!    finds its weights by the structure of the graph and puts them into a [`model::Classifier`],
//!    and a [`train::Checkpoint`] keeps that in a folder.
//! 2. **Train**: a [`train::Config`] says how, a [`data::Dataset`] on what; [`train::train()`] makes
//!    a run of a [`train::TrainJob`], and [`export::export()`] one file of the run's best checkpoint.
//! 3. **Score**: [`data::Images`] finds samples, a [`score::Runtime`] is ONNX Runtime or tract,
//!    [`score::score()`] decodes and infers side by side. With labels, [`metrics::judge`] says how
//!    good the answers are.
//! 4. **Serve**: [`serve::run()`] is the whole server, [`serve::rest::router`] its routes for an
//!    axum application.
//!
//! The programs in `examples/`, `convert`, `train`, `score` and `serve`, do each of them whole.
//!
//! # What to read first
//!
//! [`model_metadata::ModelSpec`] is what training hands to scoring, in each checkpoint and exported file.
//! [`imaging::Preprocess`] makes a network's input of image files, the same wherever that is done.
//! [`score::Engine`] is the small trait between what runs a network and whoever asks it;
//! [`train::TrainingObserver`] is how a run is followed. From there on, each module's own page says how its
//! parts go together, and `docs/ARCHITECTURE.md` why they are as they are.
//!
//! # Modules, and what each may use
//!
//! | module | what it is for | uses |
//! | --- | --- | --- |
//! | [`graph`] | ONNX files, read with care, patched and matched | nothing; `build.rs` includes it |
//! | [`model`] | networks in Burn, and pretrained weights for them | `graph` |
//! | [`imaging`] | from image files to a network's input | |
//! | [`data`] | where samples are, their labels, splits, batches | `imaging` |
//! | [`train`] | configs, the loop, optimizers, checkpoints | `model`, `data`, `metrics`, `report` |
//! | [`export`] | a trained network as one ONNX file | `model`, `graph`, `score`, `train` |
//! | [`score`] | that file over many images, on ONNX Runtime or tract | `imaging` |
//! | [`serve`] | the same behind HTTP and gRPC, for whoever sends images | `score`, `imaging` |
//! | [`store`] | files in object stores and on web servers | |
//! | [`metrics`] | how good it is, in numbers | |
//! | [`report`] | the same in pictures, and a run's course | `metrics`, `score` |
//! | [`tracking`] | a training run on a server that shows many of them | `report` |
//! | [`synth`] | samples to try all this with | `imaging` |
//! | [`cli`] | the program: subcommands, messages, exit codes | everything |
//!
//! What many use: [`model_metadata`], [`labels`], [`atomic_file`] and [`memory`]. There are no cycles. Without the
//! default features `train` and `serve` there are only the modules that scoring needs.
//!
//! # Scoring a folder
//!
//! An exported file says itself what it wants and what it answers:
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
//! # Converting a pretrained network
//!
//! The backbone takes its weights from the file, with a stem for four channels; the head is new:
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

pub mod cli;
#[cfg(feature = "train")]
pub mod convert;
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
