//! The course of a training run and the speed of scoring as charts.

use super::chart::{Chart, Line, Lines, line_chart};
use super::{EpochRow, TimingRow, best_epoch};
use crate::score::BatchSpeed;

/// What a run's charts are of.
pub(super) struct Course<'a> {
    pub rows: &'a [EpochRow],
    pub timing: &'a [TimingRow],
    /// First epochs of the stages after the first one.
    pub stages: &'a [u32],
}

/// A chart of a run: the name of its file, its heading, the drawing.
pub(super) type Titled = (&'static str, &'static str, Chart);

/// The charts of a run.
pub(super) fn run_charts(course: &Course) -> Vec<Titled> {
    let rows = course.rows;
    let of_rows = |value: fn(&EpochRow) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |row: &EpochRow| Some((f64::from(row.epoch), value(row)?));
        rows.iter().filter_map(point).collect()
    };
    let of_timing = |value: fn(&TimingRow) -> f64| -> Vec<(f64, f64)> {
        let point = |row: &TimingRow| (f64::from(row.epoch), value(row));
        course.timing.iter().map(point).collect()
    };
    let line = |name, points| Line { name, points };
    let marks: Vec<f64> = course.stages.iter().map(|epoch| (*epoch).into()).collect();
    // Only an epoch that was judged is better than others.
    let best = best_epoch(rows).filter(|row| row.valid_loss.is_some());
    let best = best.map(|row| f64::from(row.epoch));
    let chart = |label, y_name, y_max, series| {
        line_chart(&Lines {
            label,
            x_name: "epoch",
            y_name,
            y_max,
            series,
            marks: &marks,
            best,
        })
    };
    let loss = vec![
        line("train", of_rows(|row| Some(row.train_loss))),
        line("validation", of_rows(|row| row.valid_loss)),
    ];
    let f1 = vec![
        line("macro-F1", of_rows(|row| Some(row.f1_mean))),
        line("best class", of_rows(|row| Some(row.f1_max))),
        line("worst class", of_rows(|row| Some(row.f1_min))),
    ];
    let lr = vec![line("learning rate", of_rows(|row| Some(row.lr)))];
    let speed = vec![line("images/s", of_timing(|row| row.images_per_s))];
    let waited = vec![line("% of the time", of_timing(waited_share))];
    vec![
        (
            "loss.svg",
            "Loss",
            chart("loss by epoch", "loss", None, loss),
        ),
        (
            "f1.svg",
            "F1 over the classes",
            chart("F1 by epoch", "F1", Some(1.0), f1),
        ),
        (
            "learning_rate.svg",
            "Learning rate",
            chart("learning rate by epoch", "learning rate", None, lr),
        ),
        (
            "throughput.svg",
            "Throughput",
            chart(
                "training images per second by epoch",
                "images/s",
                None,
                speed,
            ),
        ),
        (
            "data_wait.svg",
            "Waiting for data",
            chart(
                "share of the time in which training waited for data, by epoch",
                "% of the time",
                None,
                waited,
            ),
        ),
    ]
}

/// Of the seconds of an epoch's steps, the share in which they waited for data, percent.
pub(super) fn waited_share(row: &TimingRow) -> f64 {
    100.0 * row.waited / row.seconds.max(1e-9)
}

/// Images per second by batch size.
pub(super) fn speed_chart(batches: &[BatchSpeed]) -> Chart {
    let line = |name, value: fn(&BatchSpeed) -> f64| {
        let point = |speed: &BatchSpeed| (speed.batch as f64, value(speed));
        Line {
            name,
            points: batches.iter().map(point).collect(),
        }
    };
    line_chart(&Lines {
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
    })
}
