//! What `rgby convert` would do with a file: the same steps, without writing anything.

use std::path::Path;

use serde::Serialize;

use crate::graph::{self, ModelProto};
use crate::model::{Exported, Pretrained, PretrainedReport, WeightsError};

/// What `rgby convert` would do with a file.
#[derive(Debug, Serialize)]
#[serde(tag = "would", rename_all = "kebab-case")]
pub enum ConversionPreview {
    /// Convert a pretrained network.
    Convert(PretrainedReport),
    /// Restore the checkpoint that rgby exported.
    Restore,
    /// Fail.
    Refuse {
        /// The error, on one line.
        reason: String,
    },
}

impl ConversionPreview {
    /// Tries the conversion; `path` is the file of `model`, which may refer to external data.
    pub(super) fn new(model: ModelProto, path: &Path) -> Self {
        let result = graph::complete(model, path)
            .map_err(WeightsError::from)
            .and_then(|model| {
                if Exported::is(&model) {
                    return Exported::new(model).map(|_| Self::Restore);
                }
                Ok(Self::Convert(Pretrained::new(model)?.trial()?))
            });
        result.unwrap_or_else(|error| Self::Refuse {
            reason: error.to_string().replace("\nhint: ", "; "),
        })
    }
}
