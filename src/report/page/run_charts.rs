//! Charts of a training run by epoch.

use super::{RunPage, TitledChart};
use crate::report::chart::{Chart, ChartLine, LineChart, line_chart};
use crate::report::{EpochRow, TimingRow, best_epoch};

impl RunPage<'_> {
    /// Draws the charts, in the order of the page.
    pub(super) fn charts(&self) -> Vec<TitledChart> {
        let loss = vec![
            self.metric("train", |row| Some(row.train_loss)),
            self.metric("validation", |row| row.valid_loss),
        ];
        let f1 = vec![
            self.metric("macro-F1", |row| Some(row.f1_mean)),
            self.metric("best class", |row| Some(row.f1_max)),
            self.metric("worst class", |row| Some(row.f1_min)),
        ];
        let rate = vec![self.metric("learning rate", |row| Some(row.lr))];
        let speed = vec![self.time("images/s", |row| row.images_per_s)];
        let waited = vec![self.time("% of the time", TimingRow::waited_percent)];
        let loss = self.chart("loss by epoch", "loss", None, loss);
        let f1 = self.chart("F1 by epoch", "F1", Some(1.0), f1);
        let rate = self.chart("learning rate by epoch", "learning rate", None, rate);
        let label = "training images per second by epoch";
        let speed = self.chart(label, "images/s", None, speed);
        let label = "share of the training time spent waiting for data, by epoch";
        let waited = self.chart(label, "% of the time", None, waited);
        vec![
            ("loss.svg", "Loss", loss),
            ("f1.svg", "F1 over all classes", f1),
            ("learning_rate.svg", "Learning rate", rate),
            ("throughput.svg", "Throughput", speed),
            ("data_wait.svg", "Waiting for data", waited),
        ]
    }

    /// Returns a line of a metric by epoch.
    fn metric(&self, name: &'static str, value: fn(&EpochRow) -> Option<f64>) -> ChartLine {
        let point = |row: &EpochRow| Some((f64::from(row.epoch), value(row)?));
        let points = self.rows.iter().filter_map(point).collect();
        ChartLine { name, points }
    }

    /// Returns a line of a timing by epoch.
    fn time(&self, name: &'static str, value: fn(&TimingRow) -> f64) -> ChartLine {
        let point = |row: &TimingRow| (f64::from(row.epoch), value(row));
        let points = self.timing.iter().map(point).collect();
        ChartLine { name, points }
    }

    /// Draws lines by epoch, with marks at the start of each stage but the first.
    fn chart(
        &self,
        label: &str,
        y_name: &str,
        y_max: Option<f64>,
        series: Vec<ChartLine>,
    ) -> Chart {
        let later = self.stages.iter().skip(1);
        let marks: Vec<f64> = later.map(|(first, _)| f64::from(*first)).collect();
        // Without validation, no epoch counts as the best.
        let best = best_epoch(self.rows).filter(|row| row.valid_loss.is_some());
        line_chart(&LineChart {
            label,
            x_name: "epoch",
            y_name,
            y_max,
            series,
            marks: &marks,
            best: best.map(|row| f64::from(row.epoch)),
        })
    }
}
