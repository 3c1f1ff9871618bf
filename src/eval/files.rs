//! The files of an evaluation.

use std::fs;
use std::path::{Path, PathBuf};

use super::page::write_page;
use super::{EvalError, EvalReport};
use crate::atomic_file::write_atomic;
use crate::score::output;

impl EvalReport {
    /// Writes `metrics.json`, `report.html` and `plots/` into the folder `out`, and creates it if it
    /// is missing. Tuned thresholds add `thresholds.json`, failed samples `errors.csv`.
    ///
    /// # Errors
    ///
    /// The folder or a file cannot be written.
    pub fn write(&self, out: &Path) -> Result<(), EvalError> {
        create_folder(&out.join("plots"))?;
        output::write_errors(&errors_path(out), &self.failures)?;
        if let Some(tuned) = &self.tuned {
            tuned.file.write(&out.join("thresholds.json"))?;
        }
        write_page(self, out)?;
        let document = format!("{:#}\n", self.to_json());
        write_atomic(&out.join("metrics.json"), document.as_bytes())?;
        Ok(())
    }

    /// Returns a warning about failed samples: their list, or where the folder `out` has it.
    #[must_use]
    pub fn failure_list(&self, out: Option<&Path>) -> String {
        let failed = self.failures.len();
        let total = failed + self.evaluation().samples;
        let summary = format!("{failed} of {total} labelled samples could not be evaluated");
        if let Some(out) = out {
            return format!("{summary}; see {}", errors_path(out).display());
        }
        self.failures.iter().fold(summary + ":", |list, f| {
            let file = if f.file.is_empty() {
                String::new()
            } else {
                format!("{}: ", f.file)
            };
            format!("{list}\n  {}: {file}{}", f.id, f.error)
        })
    }
}

/// Creates a folder and its parents.
pub(super) fn create_folder(path: &Path) -> Result<(), EvalError> {
    fs::create_dir_all(path).map_err(|cause| EvalError::CreateFolder {
        path: path.to_owned(),
        cause,
    })
}

fn errors_path(out: &Path) -> PathBuf {
    out.join("errors.csv")
}
