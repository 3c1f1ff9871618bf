//! `rgby completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Outcome, Ui};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby completions bash > ~/.local/share/bash-completion/completions/rgby
  rgby completions zsh > \"${fpath[1]}/_rgby\"
  rgby completions fish > ~/.config/fish/completions/rgby.fish")]
pub struct CompletionsArgs {
    /// Shell to complete in
    pub shell: Shell,
}

impl CompletionsArgs {
    /// Prints the completion script to stdout.
    ///
    /// # Errors
    ///
    /// Stdout cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "rgby", &mut script);
        ui.print(&String::from_utf8(script)?)?;
        Ok(Outcome::Done)
    }
}
