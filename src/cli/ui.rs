//! What a person sees: progress and notes on stderr, results on stdout.

use std::cell::RefCell;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    WeakProgressBar,
};

use super::signals::Signals;
use crate::score::ScoreObserver;

/// How often a log file hears of a bar that it cannot show.
const SPOKEN_EVERY: Duration = Duration::from_mins(1);

/// Stderr and stdout, as the user wants them.
#[derive(Debug)]
pub struct Ui {
    quiet: bool,
    /// The bars on the screen; lines are printed above them.
    bars: MultiProgress,
}

impl Ui {
    /// With `quiet` there are no bars and notes.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            // It draws nothing where stderr is not a terminal.
            ProgressDrawTarget::stderr()
        };
        Self {
            quiet,
            bars: MultiProgress::with_draw_target(target),
        }
    }

    /// Whether notes are unwanted.
    #[cfg(feature = "serve")]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A bar for `len` samples or steps, with count, rate and time left; with 0, which stands for
    /// a number that is not known yet, a message only. Colours follow `NO_COLOR`. Where stderr is
    /// no terminal, a line a minute says how far it is.
    #[must_use]
    pub fn progress(&self, len: u64, message: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(len));
        bar.set_style(style(len));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if bar.is_hidden() && !self.quiet {
            let bar = bar.downgrade();
            // It ends with the bar, or with the program.
            thread::spawn(move || speak(&bar, SPOKEN_EVERY, &mut io::stderr()));
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

    /// Says how many there are in all, once that is known.
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

    /// Prints a line to stderr, quiet or not.
    pub fn warn(&self, line: &str) {
        // Where stderr is closed there is nobody to tell.
        let _ = self.bars.suspend(|| writeln!(io::stderr(), "{line}"));
    }

    /// Prints a result to stdout. A reader that has seen enough, as in `rgby … | head`, is no
    /// error.
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

/// The look of a bar.
fn style(len: u64) -> ProgressStyle {
    let template = match len {
        0 => "{msg} …",
        _ => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len}  {rate}  {eta} left",
    };
    // A template that cannot be parsed would leave indicatif's own look, no worse than that.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.1}/s", state.per_sec());
            },
        )
}

/// Says again and again how far a bar is that is not drawn, until it is finished or gone.
fn speak(bar: &WeakProgressBar, every: Duration, out: &mut dyn Write) {
    loop {
        thread::sleep(every);
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
        // Where stderr is closed there is nobody to tell.
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands on what is written.
    struct Lines(mpsc::Sender<String>);

    impl Write for Lines {
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
    fn a_bar_that_is_not_drawn_is_spoken_of_until_it_ends() {
        let (sender, lines) = mpsc::channel();
        let bar = ProgressBar::hidden();
        bar.set_length(0);
        bar.set_message("reading images");
        let weak = bar.downgrade();
        let speaking = thread::spawn(move || {
            speak(&weak, Duration::from_millis(1), &mut Lines(sender));
        });
        assert_eq!(lines.recv().unwrap(), "reading images …\n");
        bar.set_message("scoring");
        bar.set_position(3);
        Ui::set_length(&bar, 8);
        assert!(lines.iter().any(|line| line.starts_with("scoring  3/8  ")));
        bar.finish_and_clear();
        speaking.join().unwrap();
        // Nothing is said of a bar that is gone.
        let mut said = Vec::new();
        let gone = ProgressBar::hidden().downgrade();
        speak(&gone, Duration::ZERO, &mut said);
        assert!(said.is_empty());
    }
}
