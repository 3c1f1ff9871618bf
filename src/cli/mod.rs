//! The command line: one file per subcommand, and what they share.
//!
//! A subcommand is an `Args` struct with a `run` method that parses its options, calls a library
//! function and prints the result. It returns an `Outcome` or an error; this module turns them into
//! exit codes and messages. Other programs call the library functions; only [`Cli`] is public.

#[cfg(feature = "train")]
mod bench;
#[cfg(feature = "train")]
mod cache;
mod check_data;
mod completions;
#[cfg(feature = "train")]
mod convert;
#[cfg(feature = "train")]
mod demo;
mod devices;
mod engine_args;
mod eval;
#[cfg(feature = "train")]
mod export;
#[cfg(feature = "train")]
mod inspect;
mod labelled_args;
mod layout_args;
mod man;
mod merge;
#[cfg(feature = "train")]
mod retrain;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod store_args;
mod synth;
#[cfg(feature = "train")]
mod tracking_args;
#[cfg(feature = "train")]
mod train;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use engine_args::EngineArgs;
use labelled_args::LabelledArgs;
use layout_args::LayoutArgs;
use store_args::StoreArgs;
use ui::Ui;

/// Retrain image networks on multi-channel fluorescence microscopy, and score plates with them
///
/// A sample is one field of view. By default it consists of four gray images, `<Id>_red`, `_green`,
/// `_blue` and `_yellow`. In the Human Protein Atlas these show the microtubules, the target
/// protein, the nucleus and the endoplasmic reticulum.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done; 1 done, but some samples failed (each is listed); 2 fatal, \
                  no output is half-written; 143 and 130 stopped by SIGTERM and Ctrl-C, work saved."
)]
pub struct Cli {
    /// Hide progress bars and notes on stderr; errors and failed samples are still printed
    #[arg(short, long, global = true, display_order = 900)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, in the order of a typical project.
#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "train")]
    Demo(demo::DemoArgs),
    Synth(synth::SynthArgs),
    CheckData(check_data::CheckDataArgs),
    #[cfg(feature = "train")]
    Cache(cache::CacheArgs),
    #[cfg(feature = "train")]
    Convert(convert::ConvertArgs),
    #[cfg(feature = "train")]
    Train(train::TrainArgs),
    #[cfg(feature = "train")]
    Retrain(retrain::RetrainArgs),
    Eval(eval::EvalArgs),
    #[cfg(feature = "train")]
    Export(export::ExportArgs),
    Score(score::ScoreArgs),
    Merge(merge::MergeArgs),
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    #[cfg(feature = "train")]
    Inspect(inspect::InspectArgs),
    #[cfg(feature = "train")]
    Bench(bench::BenchArgs),
    Devices(devices::DevicesArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is done.
    Done,
    /// Done, but some samples failed or a data set has errors; they were listed.
    SomeFailed,
    /// Stopped by SIGTERM with the work saved.
    Stopped,
    /// Stopped by SIGINT (Ctrl-C) with the work saved.
    Interrupted,
}

impl Outcome {
    /// Returns the outcome of a finished command; `tolerated` failures do not count.
    fn with_failures(failed: usize, tolerated: bool) -> Self {
        if failed == 0 || tolerated {
            Self::Done
        } else {
            Self::SomeFailed
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::SomeFailed => 1,
            Outcome::Stopped => 143,
            Outcome::Interrupted => 130,
        })
    }
}

/// The exit code of a failed command; clap also uses it for wrong usage.
const FATAL: u8 = 2;

impl Cli {
    /// Runs the command and prints its error, if any.
    #[must_use]
    pub fn execute(&self) -> ExitCode {
        let ui = Ui::new(self.quiet);
        self.command.run(&ui).map_or_else(
            |error| {
                ui.warn(&format!("error: {}", render(&error)));
                ExitCode::from(FATAL)
            },
            ExitCode::from,
        )
    }
}

impl Command {
    fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        match self {
            #[cfg(feature = "train")]
            Self::Demo(args) => args.run(ui),
            Self::Synth(args) => args.run(ui),
            Self::CheckData(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Cache(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Convert(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Train(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Retrain(args) => args.run(ui),
            Self::Eval(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Export(args) => args.run(ui),
            Self::Score(args) => args.run(ui),
            Self::Merge(args) => args.run(ui),
            #[cfg(feature = "serve")]
            Self::Serve(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Inspect(args) => args.run(ui),
            #[cfg(feature = "train")]
            Self::Bench(args) => args.run(ui),
            Self::Devices(args) => args.run(ui),
            Self::Completions(args) => args.run(ui),
            Self::Man(args) => args.run(ui),
        }
    }
}

/// Renders an error and its causes on one line, followed by their hints, one line each.
///
/// A message is `what: why`, optionally followed by `\nhint: remedy`. An error type whose message
/// includes its cause returns no source, so that no cause appears twice.
fn render(error: &anyhow::Error) -> String {
    let (mut causes, mut hints) = (Vec::new(), String::new());
    for message in error.chain().map(ToString::to_string) {
        let (cause, hint) = message.split_once(HINT).unwrap_or((&message, ""));
        causes.push(cause.to_owned());
        if !hint.is_empty() {
            hints += HINT;
            hints += hint;
        }
    }
    causes.join(": ") + &hints
}

/// Separates what is wrong from the remedy.
const HINT: &str = "\nhint: ";

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().unwrap_or_default().to_string();
            let example = format!("  rgby {} ", command.get_name());
            assert!(
                help.starts_with("Example:\n") && help.contains(&example),
                "{}: {help}",
                command.get_name()
            );
        }
    }

    #[test]
    fn renders_causes_on_one_line_and_hints_below() {
        let error = Err::<(), _>(io::Error::other("disk on fire\nhint: use water"))
            .context("cannot save\nhint: try again")
            .unwrap_err();
        assert_eq!(
            render(&error),
            "cannot save: disk on fire\nhint: try again\nhint: use water"
        );
    }
}
