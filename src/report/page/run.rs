//! `report.html` of a training run, and its charts as files.

use std::path::Path;

use maud::{Markup, html};

use super::course::Titled;
use super::{document, remarks, tile, write};
use crate::report::chart::{significant, titled};
use crate::report::{EpochRow, ReportError, TimingRow, best_epoch};

/// The table shows the newest epochs, so many of them; a file has them all.
const MOST_ROWS: usize = 500;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunStatus {
    /// It goes on.
    UnderWay,
    /// All is done.
    Finished,
    /// It was told to stop, and can be resumed.
    Stopped,
    /// It cannot go on: why.
    Failed(String),
}

/// All that the page of a training run shows.
pub struct RunPage<'a> {
    /// Name of the run's folder.
    pub name: String,
    /// How far it is.
    pub progress: RunStatus,
    /// Epochs that the config asks for.
    pub epochs: u32,
    /// What was measured of each epoch that is done.
    pub rows: &'a [EpochRow],
    /// How long each of them took.
    pub timing: &'a [TimingRow],
    /// First epoch of each stage, from 1, and what it does. A run without stages has none.
    pub stages: Vec<(u32, String)>,
    /// What a reader should know beside the numbers.
    pub remarks: Vec<String>,
    /// Where the run came from: data, device, versions, starting point.
    pub about: Vec<(&'static str, String)>,
    /// The resolved config, TOML.
    pub config: String,
}

impl RunPage<'_> {
    /// Writes `report.html` into the folder `out`, and its charts into `out/plots`, which must be
    /// there. Values that are not finite are left out of the charts.
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

    fn html(&self, charts: &[Titled]) -> Markup {
        let body = html! {
            (self.head())
            (self.tiles())
            (remarks(&self.remarks))
            @if !self.rows.is_empty() {
                section {
                    h2 { "Epoch by epoch" }
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
                h2 { "Where it came from" }
                dl { @for (name, value) in &self.about { dt { (name) } dd { (value) } } }
            }
            section {
                h2 { "Config" }
                details {
                    summary { "Everything resolved, as in config.toml" }
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
                        RunStatus::UnderWay => " so far",
                        RunStatus::Finished if done < self.epochs as usize => ", stopped early",
                        RunStatus::Finished => ", finished",
                        RunStatus::Stopped => "; stopped, rgby train --resume goes on",
                        RunStatus::Failed(why) => { "; ended with an error: " (why) }
                    }
                }
            }
        }
    }

    fn tiles(&self) -> Markup {
        let dash = || "–".to_owned();
        let best = best_epoch(self.rows);
        let at = |row: &EpochRow| format!("epoch {}", row.epoch);
        let judged = best.and_then(|row| Some((row, row.valid_loss?)));
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
                    &judged.map_or_else(dash, |(_, loss)| significant(loss)),
                    &judged.map_or_else(dash, |(row, _)| format!("{}, the lowest", at(row))),
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
        let mut text = "Dashed: the epoch with the lowest validation loss, whose weights are \
                        checkpoints/best."
            .to_owned();
        if self.rows.iter().all(|row| row.valid_loss.is_none()) {
            text = "There is no validation loss; checkpoints/best is the last epoch.".into();
        }
        if self.stages.len() > 1 {
            text += " Gray lines: where a stage begins.";
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
        let hidden = self.rows.len().saturating_sub(MOST_ROWS);
        let rows = self.rows.iter().zip(self.timing).skip(hidden);
        html! {
            @if !self.rows.is_empty() {
                section {
                    h2 { "Every epoch in numbers" }
                    @if hidden > 0 {
                        p.muted.small {
                            "The last " (MOST_ROWS) "; metrics.csv and timing.csv have all "
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

/// Hours, minutes and seconds, the two that matter.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
