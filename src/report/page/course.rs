//! The course of a training run as charts.

use super::RunPage;
use crate::report::chart::{Chart, Line, Lines, line_chart};
use crate::report::{EpochRow, TimingRow, best_epoch};

/// A chart of a run: the name of its file, its heading, the drawing.
pub(super) type Titled = (&'static str, &'static str, Chart);

impl RunPage<'_> {
    /// The charts, in the order of the page.
    pub(super) fn charts(&self) -> Vec<Titled> {
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
        let label = "share of the time in which training waited for data, by epoch";
        let waited = self.chart(label, "% of the time", None, waited);
        vec![
            ("loss.svg", "Loss", loss),
            ("f1.svg", "F1 over the classes", f1),
            ("learning_rate.svg", "Learning rate", rate),
            ("throughput.svg", "Throughput", speed),
            ("data_wait.svg", "Waiting for data", waited),
        ]
    }

    /// A line of what was measured of each epoch.
    fn metric(&self, name: &'static str, value: fn(&EpochRow) -> Option<f64>) -> Line {
        let point = |row: &EpochRow| Some((f64::from(row.epoch), value(row)?));
        let points = self.rows.iter().filter_map(point).collect();
        Line { name, points }
    }

    /// A line of how long each epoch took.
    fn time(&self, name: &'static str, value: fn(&TimingRow) -> f64) -> Line {
        let point = |row: &TimingRow| (f64::from(row.epoch), value(row));
        let points = self.timing.iter().map(point).collect();
        Line { name, points }
    }

    /// Lines by epoch, with a mark where a stage after the first one begins.
    fn chart(&self, label: &str, y_name: &str, y_max: Option<f64>, series: Vec<Line>) -> Chart {
        let later = self.stages.iter().skip(1);
        let marks: Vec<f64> = later.map(|(first, _)| f64::from(*first)).collect();
        // Only an epoch that was judged is better than others.
        let best = best_epoch(self.rows).filter(|row| row.valid_loss.is_some());
        line_chart(&Lines {
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
