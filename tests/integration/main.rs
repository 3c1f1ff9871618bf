//! Integration tests of the `rgby` program: one test binary with one module per subject.

mod book;
#[cfg(feature = "train")]
mod cache;
mod cli_basics;
#[cfg(feature = "train")]
mod cli_bench;
mod cli_check_data;
mod cli_devices;
mod cli_eval;
#[cfg(feature = "train")]
mod cli_inspect;
mod cli_plates;
mod cli_score;
#[cfg(feature = "train")]
mod configs;
#[cfg(feature = "train")]
mod convert;
#[cfg(unix)]
mod deploy;
#[cfg(all(unix, feature = "serve"))]
mod deploy_serve;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
mod devices;
mod eval_hostile;
#[cfg(feature = "train")]
mod exports;
#[cfg(feature = "train")]
mod features;
#[cfg(feature = "train")]
mod goldens;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu_convolutions;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
mod gpu_runs;
#[cfg(feature = "train")]
mod heads;
#[cfg(any(feature = "remote", feature = "serve"))]
mod http_request;
#[cfg(feature = "train")]
mod kill;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
mod layer_kinds;
mod layers;
#[cfg(all(feature = "train", feature = "serve"))]
mod library;
mod merge_hostile;
#[cfg(all(feature = "train", feature = "remote"))]
mod mlflow_server;
#[cfg(feature = "train")]
mod onnx_support;
#[cfg(feature = "train")]
mod precision;
#[cfg(feature = "train")]
mod precision_goldens;
#[cfg(feature = "train")]
mod pytorch;
#[cfg(all(feature = "train", feature = "serve"))]
mod reports;
#[cfg(feature = "train")]
mod resume;
#[cfg(feature = "train")]
mod retraining;
#[cfg(feature = "remote")]
mod s3_server;
mod score_ensembles;
mod score_hostile;
mod score_resume;
#[cfg(feature = "remote")]
mod score_stores;
mod score_threads;
#[cfg(feature = "remote")]
mod score_urls;
#[cfg(feature = "serve")]
mod serve_browser;
#[cfg(feature = "serve")]
mod serve_clients;
#[cfg(feature = "serve")]
mod serve_connections;
#[cfg(feature = "serve")]
mod serve_hostile;
#[cfg(feature = "serve")]
mod serve_load;
#[cfg(feature = "serve")]
mod serve_models;
#[cfg(feature = "serve")]
mod serve_page;
#[cfg(feature = "serve")]
mod serve_protocol;
#[cfg(feature = "serve")]
mod serve_support;
#[cfg(all(unix, feature = "serve"))]
mod serve_tls;
#[cfg(all(unix, feature = "serve"))]
mod serve_traces;
#[cfg(target_os = "linux")]
mod shard_kills;
mod shards;
#[cfg(all(feature = "train", feature = "serve", feature = "remote"))]
mod snapshots;
#[cfg(feature = "remote")]
mod store_support;
mod support;
#[cfg(feature = "train")]
mod tensorboard;
#[cfg(all(feature = "train", feature = "remote"))]
mod tracking;
#[cfg(all(unix, feature = "train", feature = "remote"))]
mod tracking_mlflow;
#[cfg(feature = "train")]
mod train_support;
#[cfg(feature = "train")]
mod training;
mod worker;
mod worker_hostile;
