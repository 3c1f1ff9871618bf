//! Tables of an evaluation for the terminal.

use std::fmt::Write;

use super::EvalReport;
use crate::metrics::{Interval, Intervals, RARE_SHARE};
use crate::report::OperatingPoint;

impl EvalReport {
    /// Returns tables for the terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let e = self.evaluation();
        let present = e.classes.iter().filter(|c| c.support() > 0).count();
        let lines = [
            format!(
                "{} samples, {} classes, {present} of them in the labels",
                e.samples,
                e.classes.len()
            ),
            self.point_table(),
            format!(
                "chance          {:.4}   macro-F1 of the better predictor that ignores the images",
                e.chance.best()
            ),
            format!("mean AP         {}", or_dash(e.mean_average_precision)),
            format!("mean AUROC      {}", or_dash(e.mean_auroc)),
            format!(
                "ECE             {:.4}   over all probabilities; {:.4} on average over the classes",
                e.calibration_error, e.mean_calibration_error
            ),
            format!("loss (BCE)      {:.4}", e.loss),
            format!(
                "rare found      {} of {}   classes of less than {} % of the samples",
                e.rare.found,
                e.rare.classes,
                RARE_SHARE * 100.0
            ),
            String::new(),
            self.class_table(),
        ];
        lines.join("\n")
    }

    /// Returns one line per operating point.
    fn point_table(&self) -> String {
        let longest = self.points.iter().map(|p| p.name.chars().count());
        let width = longest.fold(0, usize::max).max(20);
        let mut text = format!(
            "\n{:width$}  macro-F1  95 %             present  micro-F1  95 %             Hamming\n",
            ""
        );
        for point in &self.points {
            let e = &point.evaluation;
            let range = |select: fn(&Intervals) -> Interval| range(point, select);
            // Writing to a `String` does not fail.
            let _ = writeln!(
                text,
                "{:width$}  {:8.4}  {:15}  {:7.4}  {:8.4}  {:15}  {:7.4}",
                point.name,
                e.macro_f1,
                range(|i| i.macro_f1),
                e.macro_f1_present,
                e.micro_f1,
                range(|i| i.micro_f1),
                e.hamming_loss
            );
        }
        if let (Some(tuned), Some(optimism)) = (&self.tuned, self.optimism()) {
            let _ = writeln!(
                text,
                "{:width$}  {:8.4}  too high by {optimism:.4}: the thresholds on the labels that they \
                 were tuned on",
                "  not cross-fitted", tuned.apparent.macro_f1
            );
        }
        text
    }

    fn class_table(&self) -> String {
        let names = self.classes.iter().map(|name| name.chars().count());
        let width = names.fold(5, usize::max);
        let shown = &self.points[0];
        let tuned = self.tuned_point();
        let mut text = format!(
            " no  {:width$}  support  threshold  precision  recall      F1  95 %                 AP   \
             AUROC     ECE",
            "class"
        );
        text += if tuned.is_some() {
            "  tuned threshold  tuned F1\n"
        } else {
            "\n"
        };
        for (number, (name, c)) in self
            .classes
            .iter()
            .zip(&shown.evaluation.classes)
            .enumerate()
        {
            // Writing to a `String` does not fail.
            let _ = write!(
                text,
                "{number:3}  {name:width$}  {:7}  {:9.3}  {:9.4}  {:6.4}  {:6.4}  {:15}  {:>6}  \
                 {:>6}  {:6.4}",
                c.support(),
                c.threshold,
                c.precision,
                c.recall,
                c.f1,
                range(shown, |i| i.classes[number]),
                or_dash(c.average_precision),
                or_dash(c.auroc),
                c.calibration_error
            );
            if let Some(tuned) = tuned.map(|point| &point.evaluation.classes[number]) {
                let _ = write!(text, "  {:15.3}  {:8.4}", tuned.threshold, tuned.f1);
            }
            text.push('\n');
        }
        text
    }
}

/// Formats a number, or a dash.
fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |v| format!("{v:.4}"))
}

/// Formats an interval of a point, or a dash.
fn range(point: &OperatingPoint, select: impl Fn(&Intervals) -> Interval) -> String {
    let interval = point.intervals.as_ref().map(select);
    interval.map_or_else(|| "–".into(), |i| format!("{:.4}–{:.4}", i.low, i.high))
}
