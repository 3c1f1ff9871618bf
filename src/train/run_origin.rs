//! Where a run came from, for those who look at it later.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::run_directory::refuse;
use crate::atomic_file;

/// What a run was started with, beside its config: `RUN/run.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOrigin {
    /// Version of rgby.
    pub rgby_version: String,
    /// The device that trains.
    pub device: String,
    /// Where the images are.
    pub images: String,
    /// The labels file.
    pub labels: String,
    /// The regular expression of file names, as in `--pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The channel of each stain, as in `--channel`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, String>,
    /// The checkpoint, run or model that it started from; without one, random weights.
    pub from: Option<String>,
    /// What became of that one's head.
    pub head: Option<String>,
}

const NAME: &str = "run.json";

impl RunOrigin {
    /// Reads `run.json` of a run directory. Runs of early versions have none.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(run: &Path) -> Result<Option<Self>, TrainError> {
        let path = run.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| refuse(&path, error))?,
        };
        let origin = serde_json::from_str(&text).map_err(|error| refuse(&path, error))?;
        Ok(Some(origin))
    }

    /// Writes it into a run's folder.
    pub(super) fn write(&self, out: &Path) -> Result<(), TrainError> {
        let path = out.join(NAME);
        serde_json::to_string_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| atomic_file::write_atomic(&path, format!("{text}\n").as_bytes()))
            .map_err(|error| refuse(&path, error))
    }

    /// That of a run that is resumed on this version and device; as it is now where the folder does
    /// not say, because an older rgby began it.
    pub(super) fn resumed(self, out: &Path) -> Result<Self, TrainError> {
        let path = out.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            text => text.map_err(|error| refuse(&path, error))?,
        };
        let begun: Self = serde_json::from_str(&text).map_err(|error| {
            refuse(
                &path,
                format!(
                    "{error}; remove it to go on, the report then does not say where the run \
                     started from"
                ),
            )
        })?;
        Ok(Self {
            from: begun.from,
            head: begun.head,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> RunOrigin {
        RunOrigin {
            rgby_version: "2".into(),
            device: "wgpu".into(),
            images: "here".into(),
            ..RunOrigin::default()
        }
    }

    #[test]
    fn a_resumed_run_still_knows_where_it_started_from() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(now().resumed(dir.path()).unwrap(), now());
        let begun = RunOrigin {
            rgby_version: "1".into(),
            from: Some("initial".into()),
            head: Some("kept".into()),
            ..RunOrigin::default()
        };
        begun.write(dir.path()).unwrap();
        let resumed = now().resumed(dir.path()).unwrap();
        assert_eq!(resumed.from.as_deref(), Some("initial"));
        assert_eq!(resumed.device, "wgpu");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "{\"from\": 1").unwrap();
        let error = now().resumed(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("run.json") && error.contains("remove it"),
            "{error}"
        );
    }
}
