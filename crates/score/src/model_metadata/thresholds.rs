//! Files of tuned thresholds, for `rgby export --thresholds`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use rgby_common::atomic_file;

/// Enough for more than ten thousand classes.
const MAX_BYTES: u64 = 4 << 20;

/// `thresholds.json`, as `rgby eval --tune-thresholds --out` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdFile {
    /// Tuning method: `f1`, `ratio` or `global`.
    pub method: String,
    /// Whether they were tuned for decisions that always predict the most probable class.
    #[serde(default)]
    pub keep_argmax: bool,
    /// Number of samples that they were tuned on.
    pub samples: usize,
    pub classes: Vec<String>,
    /// One per class, 0–1.
    pub thresholds: Vec<f32>,
}

/// A file of thresholds is invalid.
#[derive(Debug, Error)]
#[error("thresholds file {}: {fault}", path.display())]
pub struct ThresholdFileError {
    pub path: PathBuf,
    pub fault: ThresholdFault,
}

/// What is wrong with a file of thresholds.
#[derive(Debug, Error)]
pub enum ThresholdFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("is larger than {} MiB; name the `thresholds.json` of `rgby eval --out`", MAX_BYTES >> 20)]
    TooLarge,
    #[error("{0}; name the `thresholds.json` of `rgby eval --tune-thresholds --out`")]
    Json(#[from] serde_json::Error),
    #[error("`thresholds` has {thresholds} entries for {classes} `classes`; give one per class")]
    Count { thresholds: usize, classes: usize },
    #[error("the threshold {value} of `{class}` is not between 0 and 1; correct it")]
    Range { class: String, value: f32 },
    /// A class of the model has no threshold.
    #[error("has no threshold for the model's class `{0}`; tune on scores of this model")]
    MissingClass(String),
    /// The model does not have the class, or it occurs twice.
    #[error(
        "its class `{0}` is not a class of the model, or occurs twice; tune on scores of this model"
    )]
    UnknownClass(String),
}

impl ThresholdFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ThresholdFileError`], naming the file and the field.
    pub fn read(path: &Path) -> Result<Self, ThresholdFileError> {
        read(path).map_err(|fault| fault.at(path))
    }

    /// Writes a file.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ThresholdFileError> {
        let write = || -> Result<(), ThresholdFault> {
            let text = serde_json::to_string_pretty(self)? + "\n";
            Ok(atomic_file::write_atomic(path, text.as_bytes())?)
        };
        write().map_err(|fault| fault.at(path))
    }

    /// Returns the thresholds in the order of the classes of a model. Errors name `path`.
    ///
    /// # Errors
    ///
    /// [`ThresholdFault::MissingClass`], [`ThresholdFault::UnknownClass`].
    pub fn for_classes(
        &self,
        classes: &[String],
        path: &Path,
    ) -> Result<Vec<f32>, ThresholdFileError> {
        let place = |class: &String| self.classes.iter().position(|name| name == class);
        let missing = |class: &String| ThresholdFault::MissingClass(class.clone()).at(path);
        let thresholds = classes
            .iter()
            .map(|class| Ok(self.thresholds[place(class).ok_or_else(|| missing(class))?]))
            .collect::<Result<_, _>>()?;
        let spare = self
            .classes
            .iter()
            .enumerate()
            .find(|(at, name)| !classes.contains(name) || place(name) != Some(*at));
        match spare {
            Some((_, name)) => Err(ThresholdFault::UnknownClass(name.clone()).at(path)),
            None => Ok(thresholds),
        }
    }
}

fn read(path: &Path) -> Result<ThresholdFile, ThresholdFault> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ThresholdFault::TooLarge);
    }
    let file: ThresholdFile = serde_json::from_slice(&bytes)?;
    if file.thresholds.len() != file.classes.len() {
        return Err(ThresholdFault::Count {
            thresholds: file.thresholds.len(),
            classes: file.classes.len(),
        });
    }
    let mut pairs = file.classes.iter().zip(&file.thresholds);
    if let Some((class, value)) = pairs.find(|(_, t)| !(0.0..=1.0).contains(*t)) {
        return Err(ThresholdFault::Range {
            class: class.clone(),
            value: *value,
        });
    }
    Ok(file)
}

impl ThresholdFault {
    fn at(self, path: &Path) -> ThresholdFileError {
        ThresholdFileError {
            path: path.to_owned(),
            fault: self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn thresholds_come_back_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thresholds.json");
        let file = ThresholdFile {
            method: "f1".into(),
            keep_argmax: true,
            samples: 9,
            classes: names(&["a", "b"]),
            thresholds: vec![0.25, 0.1],
        };
        file.write(&path).unwrap();
        assert_eq!(ThresholdFile::read(&path).unwrap(), file);
        let order = |of: &[&str]| file.for_classes(&names(of), &path);
        assert_eq!(order(&["b", "a"]).unwrap(), [0.1, 0.25]);
        let error = order(&["a", "b", "c"]).unwrap_err().to_string();
        assert!(error.contains("class `c`") && error.contains("thresholds.json"));
        assert!(order(&["a"]).unwrap_err().to_string().contains("class `b`"));
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        let document = |fields: &str| {
            format!(r#"{{"method":"f1","samples":1,"classes":["a","b"],{fields}}}"#).into_bytes()
        };
        for (text, wanted) in [
            (b"\xFF".to_vec(), "thresholds.json"),
            (document(r#""thresholds":[0.5,0.5],"more":1"#), "`more`"),
            (document(r#""thresholds":[0.5]"#), "1 entries for 2"),
            (document(r#""thresholds":[0.5,1.5]"#), "1.5 of `b`"),
            (vec![b' '; (4 << 20) + 1], "larger than 4 MiB"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ThresholdFile::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(wanted) && error.contains("t.json"),
                "{error}"
            );
        }
        let missing = ThresholdFile::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
