//! `rgby synth`: generates a labelled synthetic data set.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Outcome, Ui};
use crate::observer::Observer;
use crate::synth::{SynthConfig, generate};

/// Generate a labelled data set of synthetic four-channel cells
///
/// Blue shows nuclei, red microtubules and yellow the endoplasmic reticulum; the classes of a
/// sample determine where green appears. The images are for trying rgby only: a network trained on
/// them has learned nothing about real cells.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby synth --out data --count 64 --size 256 --classes 0,7,21

Writes DIR/images/<Id>_<stain>.png and DIR/labels.csv. The same seed gives the same samples.")]
pub struct SynthArgs {
    /// Output folder; created if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of samples
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub count: usize,
    /// Side of the images in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    pub size: u32,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Comma-separated class numbers to draw from [default: 0 to 27]
    #[arg(long, value_name = "CLASSES", value_delimiter = ',')]
    pub classes: Vec<u16>,
}

impl SynthArgs {
    /// Generates the data set.
    ///
    /// # Errors
    ///
    /// An option is out of range, the folder holds a data set already, or writing fails.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let config = SynthConfig {
            count: self.count,
            size: self.size,
            seed: self.seed,
            classes: if self.classes.is_empty() {
                SynthConfig::default().classes
            } else {
                self.classes.clone()
            },
        };
        synthesize(&self.out, &config, ui)?;
        Ok(Outcome::Done)
    }
}

/// Generates a data set with a progress bar.
pub(super) fn synthesize(out: &Path, config: &SynthConfig, ui: &Ui) -> anyhow::Result<()> {
    let observer = ui.observer();
    generate(out, config, &|done| {
        observer.progress("drawing", done, config.count);
    })?;
    let folder = out.display();
    observer.note(&format!(
        "{} synthetic samples in {folder}/images, labels in {folder}/labels.csv",
        config.count
    ));
    Ok(())
}
