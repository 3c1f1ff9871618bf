//! Whether `rgby convert` would take a file: the same steps, without writing anything.

use std::path::Path;

use serde::Serialize;

use crate::graph::{self, ModelProto};
use crate::model::{ConvertReport, Exported, Pretrained, WeightsError};

/// What `rgby convert` would do with a file.
#[derive(Debug, Serialize)]
#[serde(tag = "would", rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Make a four-channel checkpoint of a pretrained network.
    Convert(ConvertReport),
    /// Restore the checkpoint that rgby exported.
    Restore,
    /// Refuse it.
    Refuse {
        /// Why, and the mend.
        reason: String,
    },
}

impl Verdict {
    /// Tries it; `path` is where the model was read from, for its external data.
    pub fn of(model: ModelProto, path: &Path) -> Self {
        let tried = graph::complete(model, path)
            .map_err(WeightsError::from)
            .and_then(|model| {
                if Exported::is(&model) {
                    return Exported::new(model).map(|_| Self::Restore);
                }
                Ok(Self::Convert(Pretrained::new(model)?.trial()?))
            });
        tried.unwrap_or_else(|error| Self::Refuse {
            reason: error.to_string(),
        })
    }
}
