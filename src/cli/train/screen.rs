//! Shows a training run: progress on stderr, lines in RUN/log.txt, experiment tracking.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use indicatif::ProgressBar;

use super::super::Ui;
use crate::report::{EpochRow, TimingRow};
use crate::tracking::{Tracker, TrackingNotice, TrackingStatus};
use crate::train::{RunEnd, StepReport, TrainError, TrainingObserver};

/// Shows the progress of a run, writes RUN/log.txt and updates the tracking server.
pub(in crate::cli) struct Screen<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    epochs: u32,
    out: PathBuf,
    log: Mutex<RunLog>,
    tracker: Tracker,
}

/// RUN/log.txt. Lines are held back until the run directory exists.
#[derive(Default)]
struct RunLog {
    file: Option<File>,
    pending: String,
}

impl<'a> Screen<'a> {
    pub fn new(ui: &'a Ui, out: &Path, epochs: u32, tracker: Tracker) -> Self {
        let bar = ui.progress(0, "reading images");
        Self {
            ui,
            bar,
            epochs,
            out: out.to_owned(),
            log: Mutex::default(),
            tracker,
        }
    }

    /// Removes the progress bar and ends tracking.
    pub fn end(&self, result: &Result<RunEnd, TrainError>) {
        self.bar.finish_and_clear();
        let status = match result {
            Ok(RunEnd::Finished) => TrackingStatus::Finished,
            Ok(RunEnd::Stopped) => TrackingStatus::Killed,
            Err(_) => TrackingStatus::Failed,
        };
        self.show(self.tracker.end(status));
    }

    /// Prints the messages of the tracking server.
    fn show(&self, notices: Vec<TrackingNotice>) {
        for notice in notices {
            match notice {
                TrackingNotice::Note(text) => self.note(&text),
                TrackingNotice::Warning(text) => {
                    self.ui.warn(&text);
                    self.log_or_warn(&text);
                }
            }
        }
    }

    fn log_or_warn(&self, line: &str) {
        if let Err(error) = self.log(line) {
            self.ui.warn(&format!("cannot write the log: {error:#}"));
        }
    }

    fn log(&self, line: &str) -> anyhow::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.pending += line;
        log.pending.push('\n');
        if !self.out.is_dir() {
            return Ok(());
        }
        let mut file = if let Some(file) = log.file.take() {
            file
        } else {
            let path = self.out.join("log.txt");
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| path.display().to_string())?
        };
        file.write_all(std::mem::take(&mut log.pending).as_bytes())?;
        log.file = Some(file);
        Ok(())
    }
}

impl TrainingObserver for Screen<'_> {
    fn started(&self, done: u32) {
        if let Err(error) = self.tracker.start(done) {
            self.show(vec![error]);
        }
    }

    fn step(&self, report: &StepReport) {
        self.show(self.tracker.notices());
        Ui::set_length(&self.bar, u64::from(self.epochs) * report.steps as u64);
        let done = u64::from(report.epoch - 1) * report.steps as u64 + report.step as u64;
        self.bar.set_position(done);
        self.bar.set_message(format!(
            "epoch {}/{}  loss {:.4}  {:.1} images/s",
            report.epoch, self.epochs, report.loss, report.images_per_s
        ));
    }

    fn extracted(&self, done: usize, all: usize) {
        Ui::set_length(&self.bar, all as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message("features of the frozen backbone");
    }

    fn epoch(&self, row: &EpochRow, timing: &TimingRow) {
        self.note(&format!(
            "epoch {:>3}  loss {:.4}  validation {:.4}  macro-F1 {:.4}  {:.1} images/s  {:.0} s, \
             {:.0} % of it waiting for data",
            row.epoch,
            row.train_loss,
            row.valid_loss.unwrap_or(f64::NAN),
            row.f1_mean,
            timing.images_per_s,
            timing.seconds,
            timing.waited_percent()
        ));
        self.tracker.epoch(row.epoch);
    }

    fn note(&self, text: &str) {
        self.ui.note(text);
        self.log_or_warn(text);
    }
}
