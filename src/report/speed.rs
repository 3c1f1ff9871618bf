//! Chart of the scoring speed.

use std::path::Path;

use super::ReportError;
use super::chart::{ChartLine, LineChart, line_chart, titled};
use crate::atomic_file;
use crate::score::BatchSpeed;

/// Writes an SVG chart of images per second by batch size to `path`: sessions alone, end to end, and
/// the upper bound from the measured costs.
///
/// # Errors
///
/// The file cannot be written.
pub fn scoring_speed(path: &Path, batches: &[BatchSpeed]) -> Result<(), ReportError> {
    let line = |name, value: fn(&BatchSpeed) -> f64| {
        let point = |speed: &BatchSpeed| (speed.batch as f64, value(speed));
        ChartLine {
            name,
            points: batches.iter().map(point).collect(),
        }
    };
    let chart = line_chart(&LineChart {
        label: "images per second by batch size",
        x_name: "batch size",
        y_name: "images/s",
        y_max: None,
        series: vec![
            line("session alone", |speed| speed.session.images_per_s),
            line("end to end", |speed| speed.end_to_end.images_per_s),
            line("upper bound", |speed| speed.allowed_images_per_s),
        ],
        marks: &[],
        best: None,
    });
    let chart = titled("Scoring", chart);
    Ok(atomic_file::write_atomic(path, chart.file().as_bytes())?)
}
