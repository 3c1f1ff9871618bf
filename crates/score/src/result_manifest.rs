//! Manifests of finished results: `FILE.manifest.json` beside `FILE`.
//!
//! A manifest contains no paths, so that file and manifest can be moved together.
//! [`merge`](super::merge()) checks by manifests that shards belong together, and a resumed run
//! that it is already finished.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run_options;
use super::{Failure, KeyDifference, RunKey, StagedFile, beside};
use rgby_common::atomic_file;

/// Version of the format; no other version is supported.
const FORMAT: u32 = 1;
/// Maximum size of a manifest in bytes, enough for a million failures.
const MAX_BYTES: u64 = 512 << 20;

/// Content of a result file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultKind {
    /// Predicted classes.
    Predictions,
    /// One probability per class.
    Scores,
    Embeddings,
}

impl fmt::Display for ResultKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Predictions => "predictions",
            Self::Scores => "probabilities",
            Self::Embeddings => "embeddings",
        })
    }
}

/// How predictions are made from probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// One threshold per class, 0–1.
    pub thresholds: Vec<f32>,
    /// Whether the most probable class is always predicted.
    pub keep_argmax: bool,
}

impl Decision {
    /// Compares the decision of a finished result, if its manifest has one, with another.
    #[must_use]
    pub fn differences(finished: Option<&Self>, other: &Self) -> Vec<KeyDifference> {
        let values = |decision: &Self| {
            let thresholds = &decision.thresholds;
            let first = thresholds.first().copied().unwrap_or_default();
            let threshold = if thresholds
                .iter()
                .all(|other| other.total_cmp(&first).is_eq())
            {
                first.to_string()
            } else {
                format!("{thresholds:?}")
            };
            BTreeMap::from([
                ("--threshold".to_owned(), threshold),
                ("--keep-argmax".to_owned(), decision.keep_argmax.to_string()),
            ])
        };
        run_options::differences(&finished.map(values).unwrap_or_default(), &values(other))
    }
}

/// Manifest of a finished result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultManifest {
    format: u32,
    pub kind: ResultKind,
    /// Identity of the run; `count` is the number of rows of the file.
    pub run: RunKey,
    /// How predictions were made from probabilities; `None` for other kinds of results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Failed samples, in the order of the file.
    pub failures: Vec<Failure>,
}

/// A manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultManifestError {
    #[error("{}: not a valid manifest: {reason}\nhint: score this result again", .path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The manifest was written by another version of rgby.
    #[error(
        "{}: has format {found}, but this version of rgby supports only {FORMAT}\n\
         hint: use the same version for all parts of a run",
        .path.display()
    )]
    Format { path: PathBuf, found: u64 },
}

/// Returns the path of the manifest of the result `output`.
#[must_use]
pub fn manifest_path(output: &Path) -> PathBuf {
    beside(output, ".manifest.json")
}

impl ResultManifest {
    /// Creates the manifest of the complete file `output`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn of(output: &Path, kind: ResultKind, run: RunKey) -> io::Result<Self> {
        Ok(Self {
            format: FORMAT,
            kind,
            run,
            decision: None,
            sha256: atomic_file::sha256_file(output)?,
            failures: Vec::new(),
        })
    }

    /// Returns the difference if the file holds another kind of result than `kind`.
    #[must_use]
    pub fn kind_difference(&self, kind: ResultKind) -> Vec<KeyDifference> {
        let kinds =
            [self.kind, kind].map(|kind| BTreeMap::from([("content".into(), kind.to_string())]));
        let [left, right] = kinds;
        run_options::differences(&left, &right)
    }

    /// Writes the manifest beside `output`.
    ///
    /// # Errors
    ///
    /// The error of the file system.
    pub fn write(&self, output: &Path) -> io::Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        atomic_file::write_atomic(&manifest_path(output), text.as_bytes())
    }

    /// Reads the manifest beside `output`; returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// The manifest cannot be read or is invalid.
    pub fn read(output: &StagedFile) -> Result<Option<Self>, ResultManifestError> {
        let path = manifest_path(output.name());
        let damaged = |reason: String| ResultManifestError::Damaged {
            path: path.clone(),
            reason,
        };
        let file = match File::open(manifest_path(output.path())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| damaged(error.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged(format!("has more than {MAX_BYTES} bytes")));
        }
        let parsed = serde_json::from_slice::<Self>(&bytes);
        match serde_json::from_slice(&bytes) {
            // Another format may have other fields, so the format is checked first.
            Ok(ManifestVersion { format }) if format != u64::from(FORMAT) => {
                Err(ResultManifestError::Format {
                    path,
                    found: format,
                })
            }
            _ => parsed.map(Some).map_err(|error| damaged(error.to_string())),
        }
    }
}

/// The field that all formats have.
#[derive(Deserialize)]
struct ManifestVersion {
    format: u64,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::RecordedOptions;

    fn key() -> RunKey {
        RunKey {
            models: vec!["ab".into()],
            engine: "tract".into(),
            options: RecordedOptions::Text("batch 8".into()),
            samples: "cd".into(),
            listed: 9,
            shard: Some("1/3".parse().unwrap()),
            count: 2,
        }
    }

    #[test]
    fn manifests_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.csv");
        assert!(
            ResultManifest::read(&StagedFile::local(&out))
                .unwrap()
                .is_none()
        );
        fs::write(&out, "Id\n").unwrap();
        let mut manifest = ResultManifest::of(&out, ResultKind::Scores, key()).unwrap();
        manifest.decision = Some(Decision {
            thresholds: vec![0.1, 1.0 / 3.0],
            keep_argmax: true,
        });
        manifest.failures.push(Failure {
            id: "a".into(),
            file: "a_red.png".into(),
            error: "is empty".into(),
        });
        manifest.write(&out).unwrap();
        assert!(dir.path().join("out.csv.manifest.json").exists());
        assert_eq!(
            ResultManifest::read(&StagedFile::local(&out)).unwrap(),
            Some(manifest)
        );
        let moved = dir.path().join("elsewhere");
        fs::create_dir(&moved).unwrap();
        for file in ["out.csv", "out.csv.manifest.json"] {
            fs::rename(dir.path().join(file), moved.join(file)).unwrap();
        }
        let text = fs::read_to_string(moved.join("out.csv.manifest.json")).unwrap();
        assert!(!text.contains(dir.path().to_str().unwrap()), "{text}");
    }

    #[test]
    fn invalid_manifests_are_rejected_with_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.csv");
        fs::write(&out, "Id\n").unwrap();
        let manifest = ResultManifest::of(&out, ResultKind::Scores, key()).unwrap();
        let good = serde_json::to_string(&manifest).unwrap();
        for (text, wanted) in [
            (String::new(), "EOF"),
            ("[]".into(), "not a valid manifest"),
            (good[..good.len() / 2].into(), "EOF"),
            (
                good.replace("\"format\":1", "\"format\":2,\"x\":0"),
                "has format 2",
            ),
            (good.replace("\"format\":1,", ""), "`format`"),
            (good.replace("\"count\":2", "\"count\":-2"), "-2"),
            (
                good.replace("\"count\":2", "\"count\":2,\"more\":0"),
                "`more`",
            ),
            (good.replace("1/3", "4/3"), "no shard 4 of 3"),
            (good.replace("1/3", "0/0"), "must be 1 or more"),
            (good.replace("scores", "guesses"), "`guesses`"),
        ] {
            fs::write(manifest_path(&out), text).unwrap();
            let error = ResultManifest::read(&StagedFile::local(&out))
                .unwrap_err()
                .to_string();
            let named = error.contains("out.csv.manifest.json");
            assert!(named && error.contains(wanted), "{wanted}: {error}");
        }
    }
}
