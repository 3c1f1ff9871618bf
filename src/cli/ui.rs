//! What a person sees: progress and notes on stderr, results on stdout.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A bar for `len` samples or steps, with count, rate and time left. Colours follow `NO_COLOR`.
    #[must_use]
    pub fn progress(&self, len: u64, message: &str) -> ProgressBar {
        const TEMPLATE: &str =
            "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len}  {rate}  {eta} left";
        // A template that cannot be parsed would leave indicatif's own look, no worse than that.
        let style = ProgressStyle::with_template(TEMPLATE)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key(
                "rate",
                |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:.1}/s", state.per_sec());
                },
            );
        let bar = self.bars.add(ProgressBar::new(len));
        bar.set_style(style);
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
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
