//! Terminal output: progress and notes on stderr, results on stdout.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    WeakProgressBar,
};

use super::signals::Signals;
use crate::observer::Observer;
use crate::score::ScoreObserver;

/// Interval of progress lines where stderr is not a terminal.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Writes to stderr and stdout according to `--quiet`.
#[derive(Debug)]
pub struct Ui {
    quiet: bool,
    /// The visible bars; lines are printed above them.
    bars: MultiProgress,
}

/// Shows the progress and notes of one library call; removes its bar when dropped.
#[derive(Debug)]
pub struct UiObserver<'a> {
    ui: &'a Ui,
    /// The bar and the task that it shows.
    bar: Mutex<Option<(String, ProgressBar)>>,
}

impl Observer for UiObserver<'_> {
    fn progress(&self, task: &str, done: usize, total: usize) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = bar.take_if(|(shown, _)| shown != task) {
            old.finish_and_clear();
        }
        let (_, bar) = bar.get_or_insert_with(|| {
            let bar = self.ui.progress(total as u64, task);
            (task.to_owned(), bar)
        });
        bar.set_position(done as u64);
    }

    fn note(&self, text: &str) {
        self.ui.note(text);
    }

    fn warn(&self, text: &str) {
        self.ui.warn(text);
    }
}

impl Drop for UiObserver<'_> {
    fn drop(&mut self) {
        let bar = self.bar.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bar)) = bar {
            bar.finish_and_clear();
        }
    }
}

impl Ui {
    /// Creates the output; `quiet` hides progress bars and notes.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            // Draws nothing if stderr is not a terminal.
            ProgressDrawTarget::stderr()
        };
        Self {
            quiet,
            bars: MultiProgress::with_draw_target(target),
        }
    }

    /// Returns whether notes are hidden.
    #[cfg(feature = "serve")]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns an observer that shows the progress and notes of one library call.
    #[must_use]
    pub fn observer(&self) -> UiObserver<'_> {
        UiObserver {
            ui: self,
            bar: Mutex::default(),
        }
    }

    /// Returns a progress bar for `len` samples or steps, with count, rate and remaining time.
    ///
    /// `len` 0 means that the number is not known yet; then only the message is shown. Colours follow
    /// `NO_COLOR`. If stderr is not a terminal, one line per minute reports the progress.
    #[must_use]
    pub fn progress(&self, len: u64, message: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(len));
        bar.set_style(style(len));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if bar.is_hidden() && !self.quiet {
            let bar = bar.downgrade();
            // The thread ends when the bar is finished or dropped.
            thread::spawn(move || log_progress(&bar, LOG_INTERVAL, &mut io::stderr()));
        }
        bar
    }

    /// Returns an observer that shows the progress of scoring.
    #[must_use]
    pub fn scoring(&self) -> ScoringBar<'_> {
        ScoringBar {
            ui: self,
            bar: RefCell::default(),
            signals: None,
        }
    }

    /// Sets the length of a bar once it is known.
    #[cfg(any(test, feature = "train"))]
    pub fn set_length(bar: &ProgressBar, len: u64) {
        if bar.length() != Some(len) {
            bar.set_style(style(len));
            bar.set_length(len);
        }
    }

    /// Prints a line to stderr, unless quiet.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// Prints a line to stderr even if quiet.
    pub fn warn(&self, line: &str) {
        // A closed stderr is not an error.
        let _ = self.bars.suspend(|| writeln!(io::stderr(), "{line}"));
    }

    /// Prints a result to stdout. A closed pipe, as in `rgby … | head`, is not an error.
    ///
    /// # Errors
    ///
    /// Stdout cannot be written.
    pub fn print(&self, text: &str) -> io::Result<()> {
        let write = || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        };
        match self.bars.suspend(write) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("cannot write to stdout: {error}"),
            )),
            Ok(()) => Ok(()),
        }
    }

    /// Prints a value to stdout as one indented JSON document.
    ///
    /// # Errors
    ///
    /// Stdout cannot be written.
    pub fn print_json(&self, value: &serde_json::Value) -> io::Result<()> {
        self.print(&format!("{value:#}\n"))
    }
}

/// Shows the progress of scoring as a bar, and its notes as lines.
#[derive(Debug)]
pub struct ScoringBar<'a> {
    ui: &'a Ui,
    bar: RefCell<Option<ProgressBar>>,
    signals: Option<&'a Signals>,
}

impl<'a> ScoringBar<'a> {
    /// Installs the signal handlers when scoring is about to start.
    #[must_use]
    pub fn with_signals(mut self, signals: &'a Signals) -> Self {
        self.signals = Some(signals);
        self
    }
}

impl ScoreObserver for ScoringBar<'_> {
    fn ready(&self) -> io::Result<()> {
        self.signals.map_or(Ok(()), Signals::register)
    }

    fn started(&self, samples: usize, done: usize) {
        let bar = self.ui.progress(samples as u64, "scoring");
        bar.set_position(done as u64);
        // Samples of an earlier run would distort the rate.
        bar.reset_eta();
        self.bar.replace(Some(bar));
    }

    fn scored(&self, done: usize) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(done as u64);
        }
    }

    fn finished(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, line: &str) {
        self.ui.note(line);
    }

    fn warn(&self, line: &str) {
        self.ui.warn(line);
    }
}

fn style(len: u64) -> ProgressStyle {
    let template = match len {
        0 => "{msg} …",
        _ => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len}  {rate}  {eta} left",
    };
    // The template is valid; if indicatif rejected it, its default style would do.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.1}/s", state.per_sec());
            },
        )
}

/// Writes the progress of a hidden bar at each interval until the bar is finished or dropped.
fn log_progress(bar: &WeakProgressBar, interval: Duration, out: &mut dyn Write) {
    loop {
        thread::sleep(interval);
        let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) else {
            return;
        };
        let message = bar.message();
        let line = match bar.length() {
            None | Some(0) => format!("{message} …\n"),
            Some(len) => format!(
                "{message}  {}/{len}  {:.1}/s  {} left\n",
                bar.position(),
                bar.per_sec(),
                HumanDuration(bar.eta())
            ),
        };
        // A closed stderr is not an error.
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Sends each written line to a channel.
    struct LineSender(mpsc::Sender<String>);

    impl Write for LineSender {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logs_the_progress_of_a_hidden_bar_until_it_ends() {
        let (sender, lines) = mpsc::channel();
        let bar = ProgressBar::hidden();
        bar.set_length(0);
        bar.set_message("reading images");
        let weak = bar.downgrade();
        let logger = thread::spawn(move || {
            log_progress(&weak, Duration::from_millis(1), &mut LineSender(sender));
        });
        assert_eq!(lines.recv().unwrap(), "reading images …\n");
        bar.set_message("scoring");
        bar.set_position(3);
        Ui::set_length(&bar, 8);
        assert!(lines.iter().any(|line| line.starts_with("scoring  3/8  ")));
        bar.finish_and_clear();
        logger.join().unwrap();
        // A dropped bar produces no output.
        let mut output = Vec::new();
        let gone = ProgressBar::hidden().downgrade();
        log_progress(&gone, Duration::ZERO, &mut output);
        assert!(output.is_empty());
    }
}
