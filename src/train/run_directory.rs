//! The run directory: access checks, lock, config, metrics and event files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::folder_error;
use super::{TrainError, TrainJob};
use crate::atomic_file;
use crate::report::{EpochRow, EventFile, TimingRow};

/// Checks that the run may use its directory.
///
/// # Errors
///
/// A new run requires a directory without a run; a resumed run requires the same run.
pub(super) fn check_folder(job: &TrainJob) -> Result<(), TrainError> {
    let out = &job.out;
    if out.exists() && !out.is_dir() {
        return Err(folder_error(
            out,
            "is a file\nhint: --out names the run directory",
        ));
    }
    let config = out.join("config.toml");
    if !job.resume {
        return if config.exists() {
            Err(folder_error(
                out,
                "already contains a run\nhint: resume it with --resume, or choose another --out",
            ))
        } else {
            Ok(())
        };
    }
    let recorded = fs::read_to_string(&config).map_err(|error| {
        folder_error(
            &config,
            format!("there is no run to resume: {error}\nhint: remove --resume to start a new run"),
        )
    })?;
    if recorded != resolved_config(job)? {
        return Err(folder_error(
            &config,
            "the run was started with another config\n\
             hint: resume it with the same --config and --set, or start a new run with retrain \
             --from",
        ));
    }
    Ok(())
}

/// Creates the run directory and locks it.
pub(super) fn make_folder(job: &TrainJob) -> Result<File, TrainError> {
    fs::create_dir_all(job.out.join("plots")).map_err(|error| folder_error(&job.out, error))?;
    let lock = lock_folder(&job.out)?;
    // Another run may have used the directory since the first check.
    check_folder(job)?;
    Ok(lock)
}

/// Writes the resolved config. It marks the directory as a run, so the first checkpoint must exist.
pub(super) fn write_config(job: &TrainJob) -> Result<(), TrainError> {
    let text = resolved_config(job)?;
    atomic_file::write_atomic(&job.out.join("config.toml"), text.as_bytes())
        .map_err(|error| folder_error(&job.out, error))
}

/// Locks the directory against other processes until the result is dropped.
pub(super) fn lock_folder(out: &Path) -> Result<File, TrainError> {
    let path = out.join(".lock");
    let file = File::create(&path).map_err(|error| folder_error(&path, error))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => folder_error(
            out,
            "another rgby process is training in this directory\n\
             hint: wait until it ends, or choose another --out",
        ),
        TryLockError::Error(error) => folder_error(&path, error),
    })?;
    Ok(file)
}

fn resolved_config(job: &TrainJob) -> Result<String, TrainError> {
    toml::to_string_pretty(&job.config).map_err(|error| folder_error(&job.out, error))
}

pub(super) fn write_rows<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), TrainError> {
    let written = || -> Result<(), io::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(io::Error::other)?;
        }
        atomic_file::write_atomic(
            path,
            &writer
                .into_inner()
                .map_err(csv::IntoInnerError::into_error)?,
        )
    };
    written().map_err(|error| folder_error(path, error))
}

/// Creates the `TensorBoard` event file whose first epoch is `first`.
pub(super) fn event_file(out: &Path, first: u32) -> Result<EventFile, TrainError> {
    let dir = events_dir(out);
    EventFile::create(&dir, first).map_err(|error| folder_error(&dir, error))
}

/// Appends an epoch to the event file.
pub(super) fn add_events(
    events: &mut EventFile,
    out: &Path,
    row: &EpochRow,
    timing: &TimingRow,
) -> Result<(), TrainError> {
    let added = events.add(row, timing);
    added.map_err(|error| folder_error(&events_dir(out), error))
}

fn events_dir(out: &Path) -> PathBuf {
    out.join("tensorboard")
}

/// Removes the folders in `folder` whose names begin with `prefix`, except those in `kept`.
pub(super) fn remove_others(
    folder: &Path,
    prefix: &str,
    kept: &[String],
) -> Result<(), TrainError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) && !kept.contains(&name) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(|error| folder_error(folder, error))
}
