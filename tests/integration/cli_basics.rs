//! `synth`, `completions`, `man`, and the usage errors of all commands.

use std::io::pipe;

use clap::CommandFactory;
use rgby::cli::Cli;

use crate::support::{assert_refused, listing, read, records, rgby, run, workplace};

#[test]
fn scores_synthetic_samples_and_does_not_overwrite_them() {
    let dir = workplace();
    let synth = "synth --out data --count 3 --size 32 --classes 0,21";
    let made = run(dir.path(), synth);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""), "{made:?}");
    let labels = records(dir.path(), "data/labels.csv");
    assert_eq!(labels.len(), 3);
    let drawn = |row: &Vec<String>| row[1].split(' ').all(|class| ["0", "21"].contains(&class));
    assert!(labels.iter().all(drawn), "{labels:?}");
    let again = run(dir.path(), synth);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("already exists"), "{again:?}");
    let args = "score --model model.onnx --images data/images --ids data/labels.csv --engine tract";
    let scored = run(dir.path(), &format!("{args} --out out.csv"));
    assert_eq!(scored.code, Some(0), "{scored:?}");
    let ids = |name: &str| -> Vec<String> {
        let rows = records(dir.path(), name);
        rows.into_iter().map(|row| row[0].clone()).collect()
    };
    assert_eq!(ids("out.csv"), ids("data/labels.csv"));
}

#[test]
fn completions_contain_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = run(dir.path(), &format!("completions {shell}"));
        assert_eq!(run.code, Some(0), "{run:?}");
        for command in ["synth", "score", "eval", "completions"] {
            assert!(run.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let written = run(dir.path(), "man --out share/man1");
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""));
    let names = Cli::command()
        .get_subcommands()
        .map(|command| format!("rgby-{}.1", command.get_name()))
        .collect::<Vec<_>>();
    assert_eq!(
        listing(&dir.path().join("share/man1")).len(),
        names.len() + 1
    );
    for name in &names {
        let page = read(dir.path(), &format!("share/man1/{name}"));
        let printed = run(dir.path(), &name.replace("rgby-", "man ").replace(".1", ""));
        assert_eq!(printed.stdout, page, "{name}");
        for part in [".TH", ".SH SYNOPSIS", "Example:"] {
            assert!(page.contains(part), "{name}: no {part} in {page}");
        }
    }
    let whole = run(dir.path(), "man").stdout;
    assert_eq!(whole, read(dir.path(), "share/man1/rgby.1"));
    for name in &names {
        let name = name.replace('-', "\\-").replace(".1", "(1)");
        assert!(whole.contains(&name), "no {name} in {whole}");
    }
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = rgby()
        .args(["completions", "bash"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn wrong_usage_exits_with_2_and_writes_nothing() {
    let dir = workplace();
    assert_refused(
        dir.path(),
        &[
            ("synth --out new --classes 3,28", &["`classes` contains 28"]),
            ("synth --out new --count 0", &["`count` is 0"]),
            ("synth --out model.onnx", &["model.onnx"]),
            ("synth", &["--out"]),
            ("frobnicate", &["frobnicate"]),
            ("man frobnicate", &["unknown command `frobnicate`"]),
            ("man --out model.onnx", &["model.onnx"]),
            ("man score --out new", &["--out"]),
        ],
    );
}
