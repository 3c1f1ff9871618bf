//! Checkpoint, images and labels of a run, for an evaluation on its validation split.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::data::EvalData;
use super::{EvalConfig, EvalError};
use crate::data::{Images, Pattern, Split};
use crate::train::{Config, RunOrigin, resolve};

/// The best checkpoint of a run, and its validation split.
pub(super) struct RunData {
    pub checkpoint: PathBuf,
    pub data: EvalData,
    /// A line for the report.
    pub about: (String, String),
    /// Lines for the observer.
    pub notes: Vec<String>,
}

/// A line of `split.csv`.
#[derive(Deserialize)]
struct SplitRow {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Fold")]
    fold: String,
}

impl RunData {
    /// Reads `config.toml`, `split.csv` and `run.json` of the run. Images and labels of `config`
    /// replace those of the run.
    pub fn open(run: &Path, config: &EvalConfig) -> Result<Self, EvalError> {
        let fail = |reason: String| EvalError::RunData {
            run: run.to_owned(),
            reason,
        };
        let resolved = run.join("config.toml");
        if !resolved.is_file() {
            return Err(fail(
                "not a run directory: it has no config.toml\nhint: evaluate a checkpoint or an \
                 exported file with --model, --images and --labels"
                    .into(),
            ));
        }
        if Config::read(&resolved, &[])?.data.split == Split::None {
            return Err(fail(NO_VALIDATION.into()));
        }
        let only = validation_ids(&run.join("split.csv")).map_err(fail)?;
        if only.is_empty() {
            return Err(fail(NO_VALIDATION.into()));
        }
        let origin = RunOrigin::read(run)?;
        let missing = |what: &str, path: Option<&Path>| {
            let reason = match path {
                Some(path) => format!("its {what} {} do not exist here", path.display()),
                None => format!("run.json does not record its {what}"),
            };
            fail(format!("{reason}\nhint: pass --{what}"))
        };
        let images = match (&config.images, &origin) {
            (Some(images), _) => images.clone(),
            (None, Some(origin)) => recorded_images(origin).map_err(fail)?,
            (None, None) => return Err(missing("images", None)),
        };
        let labels = config.labels.clone();
        let labels = labels
            .or(origin.map(|origin| origin.labels.into()))
            .ok_or_else(|| missing("labels", None))?;
        for (what, path) in [("images", &images.path), ("labels", &labels)] {
            if !path.exists() {
                return Err(missing(what, Some(path)));
            }
        }
        let checkpoint =
            resolve(&run.join("checkpoints").join("best")).or_else(|_| resolve(run))?;
        let mut notes = Vec::new();
        if !checkpoint.ends_with("best") {
            notes.push(format!(
                "{} has no best checkpoint yet: evaluating {}",
                run.display(),
                checkpoint.display()
            ));
        }
        Ok(Self {
            checkpoint,
            about: (
                "samples".into(),
                format!("{} of the run's validation split", only.len()),
            ),
            data: EvalData {
                labels,
                images: Some(images),
                only: Some(only),
            },
            notes,
        })
    }
}

const NO_VALIDATION: &str = "the run has no validation samples (data.split)\nhint: evaluate other \
                             samples with --model RUN --images DIR --labels CSV";

/// Returns the images that the run was trained on, with their layout.
fn recorded_images(origin: &RunOrigin) -> Result<Images, String> {
    let mut images = Images::plain(&origin.images);
    images.layout.channels = origin.channels.clone();
    if let Some(pattern) = &origin.pattern {
        let pattern = pattern
            .parse::<Pattern>()
            .map_err(|error| format!("the pattern in run.json is invalid: {error}"))?;
        images.layout.pattern = Some(pattern);
    }
    Ok(images)
}

/// Reads the ids of the validation samples.
fn validation_ids(path: &Path) -> Result<HashSet<String>, String> {
    let invalid = |error: csv::Error| {
        format!(
            "{}: {error}\nhint: evaluate other samples with --model RUN --images DIR --labels CSV",
            path.display()
        )
    };
    let mut reader = csv::Reader::from_path(path).map_err(invalid)?;
    let mut ids = HashSet::new();
    for row in reader.deserialize() {
        let row: SplitRow = row.map_err(invalid)?;
        if row.fold == "valid" {
            ids.insert(row.id);
        }
    }
    Ok(ids)
}
