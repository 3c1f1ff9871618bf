//! Runs the `sh` blocks of all pages in a temporary folder on small data, except the lines listed
//! in [`NOT_RUN`]. If such a line is an rgby command, the program's parser checks it.

use std::collections::BTreeSet;

use clap::CommandFactory;
use rgby::cli::Cli;

use super::blocks::{blocks, words};
use super::pages;
use super::world::World;

/// Prefixes of lines that this test does not run, each with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("git clone", "needs a server"),
    ("cargo ", "builds for minutes"),
    ("RUSTC_BOOTSTRAP=1 cargo", "fuzzes for minutes"),
    ("RGBY_WRITE_DOCS=1 cargo", "builds for minutes"),
    (".ci/", "builds for minutes"),
    ("source torch-env", "needs PyTorch"),
    ("RUST_MIN_STACK=", "measures for minutes"),
    (
        "mdbook ",
        "`.ci/run` builds the book where mdbook is installed",
    ),
    ("pip install", "downloads packages"),
    ("python onnx/export.py --skeletons", "needs PyTorch"),
    (
        "python onnx/export.py --arch inception",
        "needs PyTorch and a download of 200 MB",
    ),
    (
        "python onnx/export.py --arch densenet121",
        "needs PyTorch and a download",
    ),
    ("python -", "needs TensorFlow"),
    ("python fuzz/", "needs Python packages"),
    ("python small", "needs PyTorch or TensorFlow"),
    ("python matrix.py", "needs PyTorch or TensorFlow"),
    ("python tests/golden", "needs PyTorch"),
    ("python deploy/ray", "needs Ray"),
    ("benches/pack_gpu_proof.sh", "needs a release build"),
    ("tar -xzf gpu_proof", "needs the packed release build"),
    ("python3 gpu_proof/", "needs a GPU and PyTorch"),
    (
        "kubectl ",
        "needs a cluster; deploy.rs runs the commands of the manifests",
    ),
    ("deploy/slurm/", "needs Slurm; deploy.rs runs the script"),
    (
        "rgby demo",
        "takes a minute, or several in a test build; its parts run here",
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
        "needs an object store; score_stores.rs has one",
    ),
    (
        "rgby score --model model.onnx --worker",
        "needs Arrow streams; worker.rs has them",
    ),
    (
        "rgby export --from runs/first --out small.onnx --precision int8",
        "needs ONNX Runtime and a trained network; precision.rs has both",
    ),
    (
        "rgby bench",
        "measures for seconds; cli_bench.rs runs it for less",
    ),
    ("rgby completions zsh", "`fpath` exists only in zsh"),
];

/// Returns the prefix in [`NOT_RUN`] that matches a command.
fn not_run(command: &str) -> Option<&'static str> {
    let command = command.trim_start();
    let mut prefixes = NOT_RUN.iter().map(|(prefix, _)| *prefix);
    prefixes.find(|prefix| command.starts_with(prefix))
}

/// Returns the parser's error for an rgby command; `None` for valid commands and other programs.
fn parse_error(command: &str) -> Option<String> {
    let words = words(command);
    // `cargo run -- demo` is an rgby command too.
    let program = match words.first()?.as_str() {
        "rgby" => 0,
        "cargo" if words[1] == "run" => words.iter().position(|word| word == "--")?,
        _ => return None,
    };
    let args = std::iter::once("rgby").chain(words[program + 1..].iter().map(String::as_str));
    let parsed = Cli::command().try_get_matches_from(args);
    parsed.err().map(|error| format!("{command}: {error}"))
}

#[test]
fn commands_of_all_pages_run() {
    let mut used = BTreeSet::new();
    let (mut ran, mut parsed) = (0, 0);
    for page in pages() {
        let blocks = blocks(&page.text);
        let mut world = None;
        for block in blocks {
            let (skipped, runs): (Vec<&String>, Vec<&String>) = block
                .commands
                .iter()
                .partition(|command| not_run(command).is_some());
            for command in skipped {
                used.extend(not_run(command));
                parsed += 1;
                assert_eq!(parse_error(command), None, "{}:{}", page.name, block.line);
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
    let prefixes = NOT_RUN.iter().map(|(prefix, _)| *prefix);
    let unused: Vec<&str> = prefixes.filter(|prefix| !used.contains(prefix)).collect();
    assert!(
        unused.is_empty(),
        "no page has lines with these prefixes: {unused:?}"
    );
    assert!(ran > 50, "{ran}");
    println!("{ran} lines of the pages ran; {parsed} were only parsed");
}

#[test]
fn detects_invalid_commands() {
    assert!(parse_error("rgby score --model m.onnx --images d --out o.csv --nonsense").is_some());
    assert!(parse_error("cargo run --release -- demos").is_some());
    for valid in [
        "curl x --nonsense",
        "cargo run --release -- demo",
        "git clone x rgby && y",
        "rgby devices | head",
    ] {
        assert_eq!(parse_error(valid), None);
    }
    let world = World::new("docs/scoring.md");
    let score = "rgby score --model model.onnx --images test --out out.csv";
    world.run(score);
    assert_eq!(world.read("out.csv").lines().count(), 4);
    let failed = std::panic::catch_unwind(|| world.run("rgby score --nonsense"));
    assert!(failed.is_err());
}
