//! What is seen of a training run: progress on the screen, lines in RUN/log.txt, servers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use indicatif::ProgressBar;

use super::super::Ui;
use super::Tracker;
use crate::report::{EpochRow, TimingRow};
use crate::tracking::{TrackingNotice, TrackingStatus};
use crate::train::{RunEnd, StepReport, TrainError, TrainingObserver};

/// Progress on the screen, the same in RUN/log.txt, and for servers that follow the run.
pub(super) struct Screen<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    epochs: u32,
    out: PathBuf,
    log: Mutex<Log>,
    tracker: Tracker,
}

/// RUN/log.txt. The folder appears only once the run can start; lines before that wait for it.
#[derive(Default)]
struct Log {
    file: Option<File>,
    waiting: String,
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

    /// The run has ended.
    pub fn end(&self, ended: &Result<RunEnd, TrainError>) {
        self.bar.finish_and_clear();
        let status = match ended {
            Ok(RunEnd::Finished) => TrackingStatus::Finished,
            Ok(RunEnd::Stopped) => TrackingStatus::Killed,
            Err(_) => TrackingStatus::Failed,
        };
        self.tell(self.tracker.end(status));
    }

    /// What trackers have to say comes from their threads, and is printed by this one.
    fn tell(&self, notices: Vec<TrackingNotice>) {
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
            self.ui.warn(&format!("the log was not written: {error:#}"));
        }
    }

    fn log(&self, line: &str) -> anyhow::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.waiting += line;
        log.waiting.push('\n');
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
        file.write_all(std::mem::take(&mut log.waiting).as_bytes())?;
        log.file = Some(file);
        Ok(())
    }
}

impl TrainingObserver for Screen<'_> {
    fn started(&self, done: u32) {
        if let Err(error) = self.tracker.start(done) {
            self.tell(vec![error]);
        }
    }

    fn step(&self, report: &StepReport) {
        self.tell(self.tracker.notices());
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
        self.bar.set_message("features of the frozen part");
    }

    fn epoch(&self, row: &EpochRow, timing: &TimingRow) {
        self.note(&format!(
            "epoch {:>3}  loss {:.4}  validation {:.4}  macro-F1 {:.4}  {:.1} images/s  {:.0} s, \
             of which {:.0} % waiting for data",
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
