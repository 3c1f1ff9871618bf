//! The folder of a run: its config, its rows of metrics, and whether a run may use it.

use std::fs;
use std::io;
use std::path::Path;

use super::{Checkpoint, Job, Progress, TrainError};
use crate::fsx;
use crate::report::EpochRow;

/// Makes the run's folder and writes the resolved config; refuses a folder in use.
pub(super) fn prepare_folder(job: &Job) -> Result<(), TrainError> {
    let refuse = |path: &Path, reason: String| TrainError::Folder {
        path: path.display().to_string(),
        reason,
    };
    let out = &job.out;
    if out.exists() && !out.is_dir() {
        return Err(refuse(
            out,
            "is a file; --out names the folder of the run".into(),
        ));
    }
    let config = out.join("config.toml");
    let text =
        toml::to_string_pretty(&job.config).map_err(|error| refuse(&config, error.to_string()))?;
    if job.resume {
        let before = fs::read_to_string(&config).map_err(|error| {
            refuse(
                &config,
                format!("{error}; there is no run to resume, leave out --resume"),
            )
        })?;
        if before != text {
            return Err(refuse(
                &config,
                "the run was started with another config; resume it with the same --config and \
                 --set, or start a new run with retrain --from"
                    .into(),
            ));
        }
        return Ok(());
    }
    if config.exists() {
        return Err(refuse(
            out,
            "holds a run; go on with --resume, or choose another --out".into(),
        ));
    }
    let made = fs::create_dir_all(out.join("plots"))
        .and_then(|()| fsx::write_atomic(&config, text.as_bytes()));
    made.map_err(|error| refuse(out, error.to_string()))
}

/// Where the run stood, if it was the same run.
pub(super) fn resumed(
    checkpoint: &Checkpoint,
    fresh: &Progress,
    out: &Path,
) -> Result<Progress, TrainError> {
    let refuse = |reason: &str| TrainError::Folder {
        path: out.display().to_string(),
        reason: reason.to_owned(),
    };
    let progress = checkpoint
        .progress
        .clone()
        .ok_or_else(|| refuse("checkpoints/last is not from a training run"))?;
    if progress.data != fresh.data {
        return Err(refuse(
            "the run was started on other samples or labels; resume it on the same data",
        ));
    }
    Ok(progress)
}

pub(super) fn write_rows(path: &Path, rows: &[EpochRow]) -> Result<(), TrainError> {
    let written = || -> Result<(), io::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(io::Error::other)?;
        }
        fsx::write_atomic(
            path,
            &writer
                .into_inner()
                .map_err(csv::IntoInnerError::into_error)?,
        )
    };
    written().map_err(|error| TrainError::Folder {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}
