//! The result of a check: counts, statistics and problems, as JSON and CSV.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ChannelStatistics, Problem, ProblemKind, Severity};
use rgby_common::atomic_file;

/// CSV column of the hints; in lower case also the JSON key.
const HINT_COLUMN: &str = "Mend";

/// All findings about a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The folder or manifest of the images.
    pub images: PathBuf,
    /// The labels file.
    #[serde(rename = "labels")]
    pub label_file: PathBuf,
    /// Number of samples in the labels file.
    pub labelled: usize,
    /// Number of samples with at least one image.
    pub samples: usize,
    pub classes: Vec<ClassCount>,
    pub channels: Vec<ChannelStatistics>,
    /// Image sizes, the most frequent first.
    pub sizes: Vec<SizeCount>,
    /// Problems by kind, and within a kind in the order of the labels or of the ids.
    pub problems: Vec<Problem>,
}

/// Number of samples of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Class number.
    pub class: usize,
    pub name: String,
    pub samples: usize,
}

/// Number of samples of an image size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Samples whose first readable image has this size.
    pub samples: usize,
}

impl CheckReport {
    /// Turns problems of these kinds into warnings.
    pub fn allow(&mut self, kinds: &[ProblemKind]) {
        let allowed = self.problems.iter_mut().filter(|p| kinds.contains(&p.kind));
        allowed.for_each(|problem| problem.severity = Severity::Warning);
    }

    /// Returns the number of problems of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let problems = self.problems.iter();
        problems
            .filter(|problem| problem.severity == severity)
            .count()
    }

    /// Returns the whole report as one JSON document.
    ///
    /// # Errors
    ///
    /// A path is not UTF-8.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut kinds = Map::new();
        for problems in self.problems.chunk_by(|a, b| a.kind == b.kind) {
            let kind = problems[0].kind;
            let mut entry = json!({
                "count": problems.len(),
                "severity": problems[0].severity,
            });
            entry[HINT_COLUMN.to_lowercase()] = kind.hint().into();
            kinds.insert(kind.name().to_owned(), entry);
        }
        let mut document = serde_json::to_value(self)?;
        document["errors"] = self.count(Severity::Error).into();
        document["warnings"] = self.count(Severity::Warning).into();
        document["kinds"] = kinds.into();
        Ok(document)
    }

    /// Writes every problem as a row of a CSV file: `Severity,Kind,Id,File,Problem,Mend`.
    ///
    /// # Errors
    ///
    /// The file cannot be written; then it is unchanged.
    pub fn write_csv(&self, path: &Path) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["Severity", "Kind", "Id", "File", "Problem", HINT_COLUMN])?;
        for problem in &self.problems {
            writer.write_record([
                problem.severity.name(),
                problem.kind.name(),
                &problem.id,
                &problem.file,
                &problem.message,
                problem.kind.hint(),
            ])?;
        }
        let bytes = writer
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?;
        atomic_file::write_atomic(path, &bytes)
    }
}
