//! The `sh` blocks of all pages: run in a scratch folder on small data, but for the lines that
//! [`NOT_RUN`] names; of those, rgby's own are read by its parser.

use std::collections::BTreeSet;

use clap::CommandFactory;
use rgby::cli::Cli;

use super::blocks::{blocks, words};
use super::pages;
use super::world::World;

/// Beginnings of the lines that no test runs, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("git clone", "there is no server to clone from"),
    ("cargo ", "builds, for minutes"),
    ("RUSTC_BOOTSTRAP=1 cargo", "fuzzes, for minutes"),
    ("RGBY_WRITE_DOCS=1 cargo", "builds, for minutes"),
    (".ci/run", "runs this test"),
    (
        "mdbook ",
        "`.ci/run` builds the book where mdbook is installed",
    ),
    ("pip install", "downloads packages"),
    ("python onnx/export.py --skeletons", "needs PyTorch"),
    (
        "python onnx/export.py --arch inception",
        "200 MB; as the line above it",
    ),
    (
        "python onnx/export.py --arch densenet121",
        "as the lines above it",
    ),
    ("python -", "needs TensorFlow"),
    ("python fuzz/", "needs Python packages"),
    ("python small", "needs PyTorch or TensorFlow"),
    ("python matrix.py", "needs PyTorch or TensorFlow"),
    ("python tests/golden", "needs PyTorch"),
    ("python deploy/ray", "needs Ray"),
    (
        "kubectl ",
        "needs a cluster; deploy.rs runs the commands in the manifests",
    ),
    ("deploy/slurm/", "needs Slurm; deploy.rs runs the script"),
    (
        "rgby demo",
        "takes a minute, several in a build for tests; its parts are run here",
    ),
    ("rgby serve", "does not end; serve_*.rs run servers"),
    ("mlflow server", "does not end; tracking_mlflow.rs runs one"),
    (
        "rgby train --log-mlflow",
        "needs a server; tracking.rs has one",
    ),
    ("curl ", "needs a server; serve_*.rs send such requests"),
    (
        "rgby score --model s3://",
        "needs a store; score_stores.rs has one",
    ),
    (
        "rgby score --model model.onnx --worker",
        "needs Arrow streams; worker.rs has some",
    ),
    (
        "rgby export --from runs/first --out small.onnx --precision int8",
        "needs ONNX Runtime and a network that was trained; precision.rs has both",
    ),
    (
        "rgby bench",
        "measures for seconds; cli_bench.rs runs it for less",
    ),
    ("rgby completions zsh", "`fpath` is zsh's"),
];

/// The line of [`NOT_RUN`] that a command falls under.
fn not_run(command: &str) -> Option<&'static str> {
    let command = command.trim_start();
    let mut listed = NOT_RUN.iter().map(|(beginning, _)| *beginning);
    listed.find(|beginning| command.starts_with(beginning))
}

/// What rgby's parser has to say against a command of its own.
fn refused(command: &str) -> Option<String> {
    let words = words(command);
    // `cargo run -- demo` is one too.
    let own = match words.first()?.as_str() {
        "rgby" => 0,
        "cargo" if words[1] == "run" => words.iter().position(|word| word == "--")?,
        _ => return None,
    };
    let args = std::iter::once("rgby").chain(words[own + 1..].iter().map(String::as_str));
    let parsed = Cli::command().try_get_matches_from(args);
    parsed.err().map(|error| format!("{command}: {error}"))
}

#[test]
fn the_commands_of_all_pages_run() {
    let mut used = BTreeSet::new();
    let (mut ran, mut read) = (0, 0);
    for page in pages() {
        let blocks = blocks(&page.text);
        let mut world = None;
        for block in blocks {
            let (left, runs): (Vec<&String>, Vec<&String>) = block
                .commands
                .iter()
                .partition(|command| not_run(command).is_some());
            for command in left {
                used.extend(not_run(command));
                read += 1;
                assert_eq!(refused(command), None, "{}:{}", page.name, block.line);
            }
            if runs.is_empty() {
                continue;
            }
            ran += runs.len();
            let script: Vec<&str> = runs.into_iter().map(String::as_str).collect();
            let script = format!("# {}:{}\n{}", page.name, block.line, script.join("\n"));
            world
                .get_or_insert_with(|| World::new(&page.name))
                .run(&script);
        }
    }
    let unused: Vec<&str> = NOT_RUN.iter().map(|(beginning, _)| *beginning).collect();
    let unused = unused
        .into_iter()
        .filter(|beginning| !used.contains(beginning));
    let unused: Vec<&str> = unused.collect();
    assert!(unused.is_empty(), "no page has such lines: {unused:?}");
    assert!(ran > 50, "{ran}");
    println!("{read} lines of the pages were only read; {ran} were run");
}

#[test]
fn a_wrong_command_would_be_found() {
    assert!(refused("rgby score --model m.onnx --images d --out o.csv --nonsense").is_some());
    assert!(refused("cargo run --release -- demos").is_some());
    for fine in [
        "curl x --nonsense",
        "cargo run --release -- demo",
        "git clone x rgby && y",
        "rgby devices | head",
    ] {
        assert_eq!(refused(fine), None);
    }
    let world = World::new("docs/scoring.md");
    let score = "rgby score --model model.onnx --images test --out out.csv";
    world.run(score);
    assert_eq!(world.read("out.csv").lines().count(), 4);
    let failed = std::panic::catch_unwind(|| world.run("rgby score --nonsense"));
    assert!(failed.is_err());
}
