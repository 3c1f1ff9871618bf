//! `rgby synth`: a labelled synthetic data set.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, Ui};
use crate::labels::HPA_CLASSES;
use crate::synth::{SynthConfig, generate};

/// Make labelled synthetic four-channel samples whose labels can be seen in the picture
///
/// Cells are drawn with nuclei in blue, microtubules in red and endoplasmic reticulum in yellow;
/// a sample's classes decide where green lies. They are cartoons to try rgby with: a network
/// that learns them has learned nothing about real cells.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby synth --out data --count 64 --size 256 --classes 0,7,21

Writes DIR/images/<Id>_<colour>.png and DIR/labels.csv; the same seed draws the same samples.")]
pub struct SynthArgs {
    /// Folder for the data set; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of samples
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub count: usize,
    /// Side of the images in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    pub size: u32,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Classes to draw from, separated by commas [default: all of 0 to 27]
    #[arg(long, value_name = "CLASSES", value_delimiter = ',')]
    pub classes: Vec<u16>,
}

impl SynthArgs {
    /// Writes the data set.
    ///
    /// # Errors
    ///
    /// A setting makes no sense, there is a data set already, or writing fails.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let all = || (0..).take(HPA_CLASSES.len()).collect();
        let config = SynthConfig {
            count: self.count,
            size: self.size,
            seed: self.seed,
            classes: if self.classes.is_empty() {
                all()
            } else {
                self.classes.clone()
            },
        };
        let bar = ui.progress(self.count as u64, "drawing");
        let drawn = generate(&self.out, &config, &|done| bar.set_position(done as u64));
        bar.finish_and_clear();
        drawn?;
        let out = self.out.display();
        ui.note(&format!(
            "{} synthetic samples in {out}/images, their classes in {out}/labels.csv",
            self.count
        ));
        Ok(Outcome::Done)
    }
}
