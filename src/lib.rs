//! wip
#[cfg(feature = "train")]
pub mod export;
pub mod data;
pub mod fsx;
#[cfg(feature = "train")]
pub mod graph;
pub mod imaging;
pub mod labels;
pub mod metrics;
#[cfg(feature = "train")]
pub mod model;
pub mod report;
pub mod score;
pub mod spec;
pub mod synth;
#[cfg(feature = "train")]
pub mod train;
