//! `rgby man`: manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Outcome, Ui};
use crate::atomic_file;

/// Print a manual page, or write all manual pages to a folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby man score | man -l -
  rgby man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Command whose page is printed [default: rgby itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub name: Option<String>,
    /// Output folder for all pages; created if missing
    ///
    /// It receives rgby.1 and one page per command, for example rgby-score.1.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl ManArgs {
    /// Prints or writes the pages.
    ///
    /// # Errors
    ///
    /// The command does not exist, or a page cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        match (&self.out, &self.name) {
            (Some(out), _) => write_all(&program, out, ui)?,
            (None, None) => ui.print(&page(&program)?)?,
            (None, Some(name)) => {
                let command = program.find_subcommand(name).with_context(|| {
                    format!("unknown command `{name}`\nhint: `rgby --help` lists the commands")
                })?;
                ui.print(&page(command)?)?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// Returns the manual page of a command in roff.
fn page(command: &Command) -> anyhow::Result<String> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

fn write_all(program: &Command, out: &Path, ui: &Ui) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let commands = || std::iter::once(program).chain(program.get_subcommands());
    for command in commands() {
        let path = out.join(Man::new(command.clone()).get_filename());
        let write = atomic_file::write_atomic(&path, page(command)?.as_bytes());
        write.with_context(|| path.display().to_string())?;
    }
    ui.note(&format!("{} pages → {}", commands().count(), out.display()));
    Ok(())
}
