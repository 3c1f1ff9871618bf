//! `docs/commands.md` is what the program says of its commands, and inline commands of all pages
//! name flags that exist.

use std::fs;

use clap::{Arg, Command, CommandFactory};
use rgby::cli::Cli;

use super::{pages, prose, root};

const PAGE: &str = "docs/commands.md";
const HEAD: &str = "\
# Commands

What `--help` says, made from the program by `RGBY_WRITE_DOCS=1 cargo test --test integration book`; \
a test compares it. Every command also takes `--quiet`, which keeps progress bars and notes from \
stderr, and `--help`. `rgby man --out DIR` writes the same as manual pages, `rgby completions SHELL` \
prints completions.

| exit code | |
| --- | --- |
| 0 | done |
| 1 | done, but some samples failed; each is listed |
| 2 | fatal; nothing is left half-written |
| 143, 130 | stopped by SIGTERM, by Ctrl-C; the work is saved |
";

fn program() -> Command {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    program
}

/// Text as Markdown takes it: `<Id>` is no HTML, and a paragraph is a line.
fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let mut code = false;
        let mut line = String::new();
        for c in paragraph.replace('\n', " ").chars() {
            code ^= c == '`';
            if !code && (c == '<' || c == '*') {
                line.push('\\');
            }
            line.push(c);
        }
        line
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A flag or an argument with its value, as on the command line.
fn call(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let values = values
        .iter()
        .filter(|_| takes)
        .map(|name| format!("<{name}>"));
    let values = values.collect::<Vec<_>>().join(" ");
    match (arg.get_long(), arg.get_short()) {
        (None, _) => values,
        (Some(long), short) => {
            let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
            format!("{short}--{long} {values}").trim_end().to_owned()
        }
    }
}

/// A line for an argument: what it is, what it may be, what it is if nothing is said.
fn line(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let help = plain(&help.map(ToString::to_string).unwrap_or_default()).replace("\n\n", " ");
    let mut line = format!("- `{}`: {}", call(arg), help.trim_end_matches('.'));
    let values = arg.get_possible_values();
    if !values.is_empty() && arg.get_action().takes_values() {
        let known: Vec<String> = values
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| match value.get_help() {
                Some(help) => {
                    let help = plain(&help.to_string());
                    format!("`{}` ({})", value.get_name(), help.trim_end_matches('.'))
                }
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        line += &format!(". One of {}", known.join(", "));
    }
    let defaults = arg.get_default_values().iter();
    let defaults: Vec<&str> = defaults.map(|value| value.to_str().unwrap()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        line += &format!(". Default: `{}`", defaults.join(","));
    }
    line + "\n"
}

/// What follows the options: the example as a block, and the rest.
fn after(command: &Command) -> String {
    let help = command.get_after_help().unwrap().to_string();
    let lines = help.lines().skip(1);
    let example: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).collect();
    let rest: Vec<&str> = help.lines().skip(1 + example.len()).collect();
    let example = example.iter().map(|line| format!("{}\n", &line[2..]));
    let rest = plain(rest.join("\n").trim());
    let rest = if rest.is_empty() {
        rest
    } else {
        format!("\n{rest}\n")
    };
    format!("\n```sh\n{}```\n{rest}", example.collect::<String>())
}

/// A command's section.
fn section(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    let about = about.unwrap().to_string();
    let usage = command.clone().render_usage().to_string();
    let mut text = format!(
        "\n## {}\n\n{}\n\n```text\n{usage}\n```\n",
        command.get_name(),
        plain(&about)
    );
    let common = ["help", "quiet", "version"];
    let args = || {
        let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
        args.filter(|arg| !common.contains(&arg.get_id().as_str()))
    };
    let mut headings: Vec<Option<&str>> = Vec::new();
    for heading in args().map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let title = heading.map(|heading| format!("**{heading}**\n\n"));
        text += &format!("\n{}", title.unwrap_or_default());
        text += &args()
            .filter(|arg| arg.get_help_heading() == heading)
            .map(line)
            .collect::<String>();
    }
    text + &after(command)
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let sections = program().get_subcommands().map(section).collect::<String>();
    let wanted = format!("{HEAD}{sections}");
    let path = root().join(PAGE);
    if std::env::var_os("RGBY_WRITE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let mut lines = found.lines().zip(wanted.lines());
    let differs = lines.find(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "{PAGE} is not what the program says; RGBY_WRITE_DOCS=1 writes it anew: {differs:?}"
    );
}

/// The flags of `rgby COMMAND …` that the command does not have.
fn unknown_flags<'a>(program: &Command, code: &'a str) -> Vec<&'a str> {
    let mut words = code.split([' ', '[', ']', '=']);
    let (Some("rgby"), Some(name)) = (words.next(), words.next()) else {
        return Vec::new();
    };
    let command = match name {
        "--help" | "--version" | "COMMAND" => return Vec::new(),
        name => program.find_subcommand(name),
    };
    let known = |flag: &str| {
        flag == "help"
            || command.is_some_and(|command| {
                command
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(flag))
            })
    };
    let mut unknown: Vec<&str> = words
        .take_while(|word| *word != "--")
        .filter(|word| word.strip_prefix("--").is_some_and(|flag| !known(flag)))
        .collect();
    if command.is_none() {
        unknown.push(name);
    }
    unknown
}

#[test]
fn commands_in_prose_have_flags_that_exist() {
    let program = program();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages() {
        for (number, text) in prose(&page.text) {
            for code in text.split('`').skip(1).step_by(2) {
                seen += usize::from(code.starts_with("rgby "));
                for word in unknown_flags(&program, code) {
                    wrong.push(format!("{}:{number}: `{code}`: no {word}", page.name));
                }
            }
        }
    }
    assert!(seen > 50, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let found = |code| unknown_flags(&program, code);
    assert_eq!(found("rgby score --tta 8 --nonsense"), ["--nonsense"]);
    assert_eq!(found("rgby nonsense --out X"), ["--out", "nonsense"]);
    assert!(found("rgby eval --compare A B").is_empty());
}
