//! `report.html` of a training run, and its charts as files.

use std::path::Path;

use maud::{Markup, html};

use super::TitledChart;
use super::{document, remarks, tile, write};
use crate::report::chart::{significant, titled};
use crate::report::{EpochRow, ReportError, TimingRow, best_epoch};

/// Number of epochs in the table, the newest ones. `metrics.csv` contains all.
const MAX_ROWS: usize = 500;

/// Status of a training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunStatus {
    Running,
    /// All epochs are done, or the run stopped early by `train.patience`.
    Finished,
    /// Interrupted by a signal; it can be resumed.
    Stopped,
    /// Ended with this error.
    Failed(String),
}

/// Content of the report of a training run.
pub struct RunPage<'a> {
    /// Name of the run directory.
    pub name: String,
    pub progress: RunStatus,
    /// Epochs in the config.
    pub epochs: u32,
    /// Completed epochs.
    pub rows: &'a [EpochRow],
    pub timing: &'a [TimingRow],
    /// First epoch (from 1) and description of each stage; empty for a run without stages.
    pub stages: Vec<(u32, String)>,
    /// Limits of the numbers, one sentence or more each.
    pub remarks: Vec<String>,
    /// Provenance as names and values: data, device, versions, starting point.
    pub about: Vec<(&'static str, String)>,
    /// The resolved config in TOML.
    pub config: String,
}

impl RunPage<'_> {
    /// Writes `report.html` into the folder `out`, and the charts into `out/plots`, which must exist.
    /// Charts omit values that are not finite.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, out: &Path) -> Result<(), ReportError> {
        let charts = self.charts();
        let page = self.html(&charts);
        let charts = charts.into_iter();
        let files = charts.map(|(name, title, chart)| (name, titled(title, chart)));
        write(out, files, page)
    }

    fn html(&self, charts: &[TitledChart]) -> Markup {
        let body = html! {
            (self.head())
            (self.tiles())
            (remarks(&self.remarks))
            @if !self.rows.is_empty() {
                section {
                    h2 { "Charts by epoch" }
                    p.muted.small { (self.legend()) }
                    div.charts {
                        @for (_, title, chart) in charts {
                            figure { figcaption { (title) } (chart.svg()) }
                        }
                    }
                }
            }
            (self.stages())
            (self.table())
            section {
                h2 { "Provenance" }
                dl { @for (name, value) in &self.about { dt { (name) } dd { (value) } } }
            }
            section {
                h2 { "Config" }
                details {
                    summary { "Resolved config, as in config.toml" }
                    pre { (self.config) }
                }
            }
        };
        document(&format!("Training of {}", self.name), &body)
    }

    fn head(&self) -> Markup {
        let done = self.rows.len();
        html! {
            header {
                h1 { "Training of " (self.name) }
                p.muted {
                    (done) " of " (self.epochs) " epochs"
                    @match &self.progress {
                        RunStatus::Running => ", running",
                        RunStatus::Finished if done < self.epochs as usize => ", stopped early",
                        RunStatus::Finished => ", finished",
                        RunStatus::Stopped => "; interrupted, continue with rgby train --resume",
                        RunStatus::Failed(why) => { "; failed: " (why) }
                    }
                }
            }
        }
    }

    fn tiles(&self) -> Markup {
        let dash = || "–".to_owned();
        let best = best_epoch(self.rows);
        let at = |row: &EpochRow| format!("epoch {}", row.epoch);
        let validated = best.and_then(|row| Some((row, row.valid_loss?)));
        let seconds: f64 = self.timing.iter().map(|row| row.seconds).sum();
        let waited: f64 = self.timing.iter().map(|row| row.waited).sum();
        let mut speeds: Vec<f64> = self.timing.iter().map(|row| row.images_per_s).collect();
        speeds.sort_by(f64::total_cmp);
        html! {
            div.tiles {
                (tile(
                    "macro-F1",
                    &best.map_or_else(dash, |row| format!("{:.3}", row.f1_mean)),
                    &best.map_or_else(dash, |row| match row.valid_loss {
                        Some(_) => format!("{}, the best", at(row)),
                        None => format!("{}, the last", at(row)),
                    }),
                    true,
                ))
                (tile(
                    "validation loss",
                    &validated.map_or_else(dash, |(_, loss)| significant(loss)),
                    &validated.map_or_else(dash, |(row, _)| format!("{}, the lowest", at(row))),
                    false,
                ))
                (tile(
                    "train loss",
                    &self.rows.last().map_or_else(dash, |row| significant(row.train_loss)),
                    &self.rows.last().map_or_else(dash, |row| format!("{}, the last", at(row))),
                    false,
                ))
                (tile(
                    "images/s",
                    &speeds.get(speeds.len() / 2).map_or_else(dash, |speed| significant(*speed)),
                    "median of the epochs",
                    false,
                ))
                (tile("training time", &duration(seconds), "without validation", false))
                (tile(
                    "waiting for data",
                    &format!("{:.0} %", 100.0 * waited / seconds.max(1e-9)),
                    "of that time",
                    false,
                ))
            }
        }
    }

    fn legend(&self) -> String {
        let mut text = "Dashed line: the epoch with the lowest validation loss, saved as \
                        checkpoints/best."
            .to_owned();
        if self.rows.iter().all(|row| row.valid_loss.is_none()) {
            text = "There is no validation loss; checkpoints/best is the last epoch.".into();
        }
        if self.stages.len() > 1 {
            text += " Gray lines: start of a stage.";
        }
        text
    }

    fn stages(&self) -> Markup {
        html! {
            @if !self.stages.is_empty() {
                section {
                    h2 { "Stages" }
                    dl {
                        @for (first, what) in &self.stages {
                            dt { "from epoch " (first) } dd { (what) }
                        }
                    }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        let best = best_epoch(self.rows).map(|row| row.epoch);
        let hidden = self.rows.len().saturating_sub(MAX_ROWS);
        let rows = self.rows.iter().zip(self.timing).skip(hidden);
        html! {
            @if !self.rows.is_empty() {
                section {
                    h2 { "Metrics by epoch" }
                    @if hidden > 0 {
                        p.muted.small {
                            "The last " (MAX_ROWS) " epochs; metrics.csv and timing.csv contain all "
                            (self.rows.len()) "."
                        }
                    }
                    div.scroll.tall { table {
                        thead { tr {
                            th { "epoch" } th { "train loss" } th { "validation loss" }
                            th { "macro-F1" } th { "worst class" } th { "best class" }
                            th { "learning rate" } th { "images/s" } th { "seconds" }
                            th { "waiting" }
                        } }
                        tbody {
                            @for (row, timing) in rows.rev() {
                                tr class=[(best == Some(row.epoch)).then_some("lead")] {
                                    th {
                                        (row.epoch)
                                        @if best == Some(row.epoch) { " best" }
                                    }
                                    td { (significant(row.train_loss)) }
                                    td { (row.valid_loss.map_or_else(|| "–".into(), significant)) }
                                    td { (format!("{:.3}", row.f1_mean)) }
                                    td { (format!("{:.3}", row.f1_min)) }
                                    td { (format!("{:.3}", row.f1_max)) }
                                    td { (significant(row.lr)) }
                                    td { (significant(timing.images_per_s)) }
                                    td { (significant(timing.seconds)) }
                                    td { (format!("{:.1} %", timing.waited_percent())) }
                                }
                            }
                        }
                    } }
                }
            }
        }
    }
}

/// Formats a duration with its two largest units.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
