//! The speed of scoring as a chart.

use std::path::Path;

use super::ReportError;
use super::chart::{Line, Lines, line_chart, titled};
use crate::atomic_file;
use crate::score::BatchSpeed;

/// Draws images per second by batch size to the SVG file `path`: the sessions alone, what the costs
/// allow, and end to end.
///
/// # Errors
///
/// The picture cannot be written.
pub fn scoring_speed(path: &Path, batches: &[BatchSpeed]) -> Result<(), ReportError> {
    let line = |name, value: fn(&BatchSpeed) -> f64| {
        let point = |speed: &BatchSpeed| (speed.batch as f64, value(speed));
        Line {
            name,
            points: batches.iter().map(point).collect(),
        }
    };
    let chart = line_chart(&Lines {
        label: "images per second by batch size",
        x_name: "batch size",
        y_name: "images/s",
        y_max: None,
        series: vec![
            line("session alone", |speed| speed.session.images_per_s),
            line("end to end", |speed| speed.end_to_end.images_per_s),
            line("what costs allow", |speed| speed.allowed_images_per_s),
        ],
        marks: &[],
        best: None,
    });
    let chart = titled("Scoring", chart);
    Ok(atomic_file::write_atomic(path, chart.file().as_bytes())?)
}
