//! Pictures of a training run as SVG files, its course for `TensorBoard`, and the page of an
//! evaluation.

mod chart;
mod page;
mod svg;
mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};

use plotters::chart::SeriesLabelPosition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fsx;
use crate::score::BatchSpeed;
use svg::{Line, Lines};

pub use page::{Card, EvaluationPage, OperatingPoint, Picked, pick};
pub use tensorboard::EventFile;

/// What one epoch of training came to: a row of `metrics.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Mean loss over the epoch's training batches.
    pub train_loss: f64,
    /// Mean loss over the validation samples, if there are any.
    pub valid_loss: Option<f64>,
    /// Macro-F1, 0–1.
    pub f1_mean: f64,
    /// Standard deviation of F1 over the classes.
    pub f1_std: f64,
    /// F1 of the worst class, 0–1.
    pub f1_min: f64,
    /// F1 of the best class, 0–1.
    pub f1_max: f64,
    /// Learning rate at the end of the epoch.
    pub lr: f64,
}

/// How long an epoch took: a row of `timing.csv`. It stands apart from the metrics, which are the
/// same to the bit however often a run was interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimingRow {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Seconds that its training steps took.
    pub seconds: f64,
    /// Training samples per second.
    pub images_per_s: f64,
    /// Of the seconds, those in which the next batch was not there yet.
    pub waited: f64,
}

/// Why a picture could not be made or rows not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The picture could not be drawn.
    #[error("cannot draw {}: {reason}", .path.display())]
    Draw {
        /// The picture.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
    /// The picture could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The rows could not be read.
    #[error("{}: not the metrics of a training run: {source}", .path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong, and on which line.
        source: csv::Error,
    },
}

/// Reads the rows of a `metrics.csv` or `timing.csv`.
///
/// # Errors
///
/// The file cannot be read or has other columns.
pub fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    csv::Reader::from_path(path)
        .and_then(|reader| reader.into_deserialize().collect())
        .map_err(|source| ReportError::Rows {
            path: path.to_owned(),
            source,
        })
}

/// Writes `loss.svg` and `f1.svg` into the folder `dir`: the course of a training run.
///
/// Values that are not finite are left out of the lines.
///
/// # Errors
///
/// A picture cannot be drawn or written.
pub fn training_curves(rows: &[EpochRow], dir: &Path) -> Result<(), ReportError> {
    let line = |name: &'static str, value: fn(&EpochRow) -> Option<f64>| {
        let point = |row: &EpochRow| Some((f64::from(row.epoch), value(row)?));
        let points = rows
            .iter()
            .filter_map(point)
            .filter(|(_, y)| y.is_finite())
            .collect();
        Line { name, points }
    };
    let loss = Lines {
        title: "Loss",
        x_label: "epoch",
        y_label: "binary cross-entropy",
        y_max: None,
        legend: SeriesLabelPosition::UpperRight,
        series: vec![
            line("train", |r| Some(r.train_loss)),
            line("validation", |r| r.valid_loss),
        ],
    };
    write(&dir.join("loss.svg"), |path| loss.draw(path))?;
    let f1 = Lines {
        title: "F1 over the classes",
        x_label: "epoch",
        y_label: "F1",
        y_max: Some(1.0),
        legend: SeriesLabelPosition::UpperLeft,
        series: vec![
            line("mean (macro-F1)", |r| Some(r.f1_mean)),
            line("best class", |r| Some(r.f1_max)),
            line("worst class", |r| Some(r.f1_min)),
        ],
    };
    write(&dir.join("f1.svg"), |path| f1.draw(path))
}

/// Draws images per second by batch size to the SVG file `path`: the sessions alone, what the costs
/// allow, and end to end.
///
/// # Errors
///
/// The picture cannot be drawn or written.
pub fn scoring_speed(path: &Path, batches: &[BatchSpeed]) -> Result<(), ReportError> {
    let line = |name: &'static str, value: fn(&BatchSpeed) -> f64| {
        let point = |speed: &BatchSpeed| (speed.batch as f64, value(speed));
        let points = batches.iter().map(point).collect();
        Line { name, points }
    };
    let speed = Lines {
        title: "Scoring",
        x_label: "batch size",
        y_label: "images per second",
        y_max: None,
        legend: SeriesLabelPosition::LowerRight,
        series: vec![
            line("session alone", |speed| speed.session.images_per_s),
            line("end to end", |speed| speed.end_to_end.images_per_s),
            line("what both costs allow", |speed| speed.allowed_images_per_s),
        ],
    };
    write(path, |path| speed.draw(path))
}

/// Draws a picture and writes it as one atomic step.
fn write<E: std::fmt::Display>(
    path: &Path,
    draw: impl FnOnce(&mut String) -> Result<(), E>,
) -> Result<(), ReportError> {
    let mut text = String::new();
    draw(&mut text).map_err(|e| ReportError::Draw {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(fsx::write_atomic(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rows(count: u32) -> Vec<EpochRow> {
        let row = |epoch| EpochRow {
            epoch,
            train_loss: 0.7 / f64::from(epoch),
            valid_loss: (epoch % 3 != 0).then(|| 0.75 / f64::from(epoch).sqrt()),
            f1_mean: 0.9 - 0.8 / f64::from(epoch),
            f1_std: 0.1,
            f1_min: 0.0,
            f1_max: 1.0 - 0.5 / f64::from(epoch),
            lr: 1.0,
        };
        (1..=count).map(row).collect()
    }

    /// Number of `<polyline` elements: drawn lines and legend marks.
    fn lines_in(path: &Path, color: &str) -> usize {
        let text = fs::read_to_string(path).unwrap();
        text.split("<polyline")
            .skip(1)
            .filter(|element| element.contains(color))
            .count()
    }

    #[test]
    fn curves_have_lines_labels_and_a_legend() {
        let dir = tempfile::tempdir().unwrap();
        training_curves(&rows(12), dir.path()).unwrap();
        let loss = fs::read_to_string(dir.path().join("loss.svg")).unwrap();
        for text in [
            "Loss",
            "epoch",
            "binary cross-entropy",
            "train",
            "validation",
        ] {
            assert!(loss.contains(&format!(">\n{text}\n<")), "{text}");
        }
        // A line and its mark in the legend.
        assert_eq!(lines_in(&dir.path().join("loss.svg"), "#0072B2"), 2);
        assert_eq!(lines_in(&dir.path().join("loss.svg"), "#D55E00"), 2);
        let f1 = fs::read_to_string(dir.path().join("f1.svg")).unwrap();
        assert!(f1.contains("worst class") && f1.contains("mean (macro-F1)"));
    }

    #[test]
    fn runs_that_are_short_or_diverged_can_be_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let mut diverged = rows(3);
        diverged[1].train_loss = f64::NAN;
        diverged[0].train_loss = 1e300;
        diverged[2].train_loss = f64::INFINITY;
        let without_validation: Vec<_> = rows(4)
            .into_iter()
            .map(|row| EpochRow {
                valid_loss: None,
                ..row
            })
            .collect();
        for rows in [vec![], rows(1), diverged, without_validation] {
            training_curves(&rows, dir.path()).unwrap();
            let loss = fs::read_to_string(dir.path().join("loss.svg")).unwrap();
            assert!(loss.trim_end().ends_with("</svg>"));
            assert!(!loss.contains("NaN") && !loss.contains("inf"), "{loss}");
            let validated = rows.iter().any(|row| row.valid_loss.is_some());
            assert_eq!(loss.contains("validation"), validated);
        }
    }

    #[test]
    fn rows_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let mut writer = csv::Writer::from_path(&path).unwrap();
        for row in rows(4) {
            writer.serialize(row).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(read_rows::<EpochRow>(&path).unwrap(), rows(4));
        fs::write(&path, "Id,Target\na,1\n").unwrap();
        let error = read_rows::<EpochRow>(&path).unwrap_err().to_string();
        assert!(
            error.contains("metrics.csv") && error.contains("epoch"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = training_curves(&rows(1), Path::new("/no/such/folder")).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
