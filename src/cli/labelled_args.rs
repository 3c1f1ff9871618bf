//! Options for labelled images, shared by all commands that need both.

use std::path::PathBuf;

use clap::Args;

use super::LayoutArgs;
use crate::data::Images;

/// Labelled images.
#[derive(Debug, Clone, Args)]
pub struct LabelledArgs {
    /// Folder of `<Id>_<stain>` images, or manifest that lists the image files
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet")]
    pub images: PathBuf,
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// CSV with labels, `Id,Target`; classes are separated by spaces
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
}

impl LabelledArgs {
    /// Returns the location and layout of the images.
    ///
    /// # Errors
    ///
    /// As [`LayoutArgs::of`].
    pub fn images(&self) -> anyhow::Result<Images> {
        self.layout.of(&self.images)
    }
}
