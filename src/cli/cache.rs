//! `rgby cache`: decodes and resizes a data set once.

use std::path::PathBuf;

use clap::Args;

use super::{LabelledArgs, Outcome, Ui};
use crate::data::{CacheForm, Dataset};
use crate::imaging::{CHANNELS, Preprocess, Resize};
use crate::train::build_cache;

/// Decode and resize a data set once, into one file that training reads instead of the images
///
/// `rgby train --cache FILE` creates a missing cache itself, with the settings of its config.
/// Unreadable samples are left out and listed in FILE.errors.csv; the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby cache --images train/ --labels train.csv --size 224 --resize skimage --out train-224.cache
  rgby train --cache train-224.cache --config configs/resnet50-rgby.toml \\
    --images train/ --labels train.csv --out runs/cached")]
pub struct CacheArgs {
    // The labels determine the samples and their order.
    #[command(flatten)]
    pub data: LabelledArgs,
    /// Side of the cached images in pixels
    ///
    /// Use `model.input_size` of the configs, or more if they crop.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub size: u32,
    /// Output file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Stains to cache: `model.channels` of the training configs
    #[arg(long, value_name = "CHANNELS", value_delimiter = ',', default_values_t = CHANNELS.map(str::to_owned))]
    pub channels: Vec<String>,
    /// Resize filter: `data.resize` of the training configs
    #[arg(long, value_name = "FILTER", value_enum, default_value_t)]
    pub resize: Resize,
}

impl CacheArgs {
    /// Writes the cache.
    ///
    /// # Errors
    ///
    /// The data set cannot be opened, no sample can be read, or the file cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let preprocess = Preprocess::new(&self.channels, self.size);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        let form = CacheForm {
            size: self.size,
            resize: self.resize,
            stains: preprocess.stains(),
        };
        // A cache does not depend on the classes: accept any number that a target can hold.
        let classes = usize::from(u16::MAX) + 1;
        let dataset = Dataset::open(
            &self.data.images()?,
            &self.data.labels,
            &form.stains,
            classes,
        )?;
        let report = build_cache(&self.out, &dataset, &form, &ui.observer())?;
        Ok(Outcome::with_failures(report.failures.len(), false))
    }
}
