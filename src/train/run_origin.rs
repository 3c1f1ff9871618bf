//! The origin of a run: version, device, data and starting weights.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::error::folder_error;
use super::{StartingPoint, TrainDevice, TrainError};
use crate::atomic_file;
use crate::data::Images;

/// How a run was started, except for its config; written to `RUN/run.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOrigin {
    pub rgby_version: String,
    /// The training device, as in `--device`.
    pub device: String,
    /// The folder or manifest of the images.
    pub images: String,
    /// The labels file.
    pub labels: String,
    /// The regular expression of file names, as in `--pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The channel of each stain, as in `--channel`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, String>,
    /// The checkpoint or ONNX file that the run started from; random weights if absent.
    pub from: Option<String>,
    /// What happened to the head of the starting point, in words.
    pub head: Option<String>,
}

const NAME: &str = "run.json";

impl RunOrigin {
    /// Returns the origin of a run that starts with this version of rgby.
    #[must_use]
    pub fn new(
        device: TrainDevice,
        images: &Images,
        labels: &Path,
        from: Option<&StartingPoint>,
    ) -> Self {
        let pattern = images.layout.pattern.as_ref();
        Self {
            rgby_version: env!("CARGO_PKG_VERSION").into(),
            device: device.to_string(),
            images: images.path.display().to_string(),
            labels: labels.display().to_string(),
            pattern: pattern.map(|pattern| pattern.as_str().to_owned()),
            channels: images.layout.channels.clone(),
            from: from.map(|start| start.path.display().to_string()),
            head: from.map(|start| start.head().into()),
        }
    }

    /// Reads `run.json` of a run directory. Runs of early versions have none.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(run: &Path) -> Result<Option<Self>, TrainError> {
        let path = run.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| folder_error(&path, error))?,
        };
        let origin = serde_json::from_str(&text).map_err(|error| folder_error(&path, error))?;
        Ok(Some(origin))
    }

    /// Returns the origin and `data`, the hash of the data set, as tags of a tracked run.
    #[must_use]
    pub fn tags(&self, data: &str) -> Vec<(String, String)> {
        let tags = [
            ("rgby.version", Some(self.rgby_version.as_str())),
            ("rgby.device", Some(self.device.as_str())),
            ("rgby.images", Some(self.images.as_str())),
            ("rgby.labels", Some(self.labels.as_str())),
            ("rgby.data", Some(data)),
            ("rgby.from", self.from.as_deref()),
            ("rgby.head", self.head.as_deref()),
        ];
        let present = |(name, value): (&str, Option<&str>)| Some((name.into(), value?.into()));
        tags.into_iter().filter_map(present).collect()
    }

    /// Writes `run.json` into the run directory.
    pub(super) fn write(&self, out: &Path) -> Result<(), TrainError> {
        let path = out.join(NAME);
        serde_json::to_string_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| atomic_file::write_atomic(&path, format!("{text}\n").as_bytes()))
            .map_err(|error| folder_error(&path, error))
    }

    /// Returns the origin of a resumed run: the starting point of the existing `run.json`, all else as
    /// now. Runs of older versions have no `run.json`; they keep `self`.
    pub(super) fn resumed(self, out: &Path) -> Result<Self, TrainError> {
        let path = out.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            text => text.map_err(|error| folder_error(&path, error))?,
        };
        let begun: Self = serde_json::from_str(&text).map_err(|error| {
            folder_error(
                &path,
                format!(
                    "{error}\nhint: remove it to resume; the report then lacks the starting point of \
                     the run"
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
    fn resuming_keeps_the_starting_point() {
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
    fn reads_files_without_pattern_and_channels() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunOrigin::read(dir.path()).unwrap(), None);
        let old = r#"{"rgby_version":"0","device":"cpu","images":"i","labels":"l","from":null,"head":null}"#;
        fs::write(dir.path().join(NAME), old).unwrap();
        let read = RunOrigin::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.images.as_str(), read.pattern), ("i", None));
        assert!(read.channels.is_empty());
    }

    #[test]
    fn names_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "{\"from\": 1").unwrap();
        let error = now().resumed(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("run.json") && error.contains("remove it"),
            "{error}"
        );
    }
}
