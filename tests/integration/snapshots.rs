//! Snapshots of the help of every command and of the most common errors.
//!
//! `INSTA_UPDATE=always cargo test --test integration snapshots` rewrites the files in `snapshots/`.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use rgby::cli::Cli;

use crate::support::{listing, must, run, write_sample};
use crate::train_support::{DATA, workplace};

/// Columns at which help texts wrap.
const WIDTH: usize = 100;

#[test]
fn help_of_every_command() {
    let mut program = Cli::command()
        .term_width(WIDTH)
        .disable_help_subcommand(true);
    program.build();
    let mut help = vec![program.render_long_help().to_string()];
    for command in program.get_subcommands_mut() {
        let name = format!("rgby {}", command.get_name());
        let text = command.clone().term_width(WIDTH).render_long_help();
        help.push(format!("──── {name} ────\n{text}"));
    }
    insta::assert_snapshot!("help", help.join("\n"));
}

/// Command lines that fail in the folder of [`error_workplace`].
const ERRORS: &[&str] = &[
    // Files and folders
    "score --model absent.onnx --images images --out out.csv",
    "score --model labels.csv --images images --out out.csv",
    "score --model run --images images --out out.csv",
    "score --model model.onnx --images absent --out out.csv",
    "score --model model.onnx --images empty --out out.csv",
    "score --model model.onnx --images images --out images",
    "score --model model.onnx --images images --out absent/out.csv",
    "score --model model.onnx --images images --out out.csv --scores out.csv",
    "score --model model.onnx --images images --ids absent.csv --out out.csv",
    "score --model model.onnx --images http:// --out out.csv",
    // Engines and devices
    "score --model model.onnx --images images --out out.csv --ort-lib absent.so --engine onnxruntime",
    "score --model model.onnx --images images --out out.csv --device cuda --engine tract",
    "score --model model.onnx --images images --out out.csv --device gpu",
    "score --model model.onnx --images images --out out.csv --engine tract --engine-config labels.csv",
    // Invalid options
    "score --model model.onnx --images images --out out.csv --threshold 1.5",
    "score --model model.onnx --images images --out out.csv --tta 4",
    "score --model model.onnx --images images --out out.csv --tta-combine max",
    "score --model model.onnx --images images --out out.csv --shard 9/8",
    "score --model model.onnx --images images --out out.csv --shards 8",
    "score --model model.onnx --images images --out out.csv --embeddings embeddings.csv --engine tract",
    "score --model model.onnx --images images --out out.csv --spec labels.csv",
    "score --model model.onnx --images images --pattern (.* --out out.csv",
    "score --model model.onnx --images images --channel red=0 --channel red=1 --out out.csv",
    // An interrupted or finished run
    "score --model model.onnx --images images --out done.csv --engine tract --batch 4 --resume",
    "score --model model.onnx --images images --out done.csv --engine tract --threshold 0.2 --resume",
    "merge done.csv images --out merged.csv",
    // Labels
    "check-data --images images --labels absent.csv",
    "check-data --images images --labels model.onnx",
    "eval --model model.onnx --images images --labels unlabelled.csv --engine tract",
    "eval --model model.onnx --images images --labels beyond.csv --engine tract",
    "eval --scores labels.csv --labels labels.csv",
    "eval --scores scores.csv --labels labels.csv --threshold tuned",
    "eval --scores scores.csv --labels labels.csv --tune-thresholds ratio",
    "eval --run images --out report",
    // Training
    "train --config absent.toml --images data/images --labels data/labels.csv --out new",
    "train --config labels.csv --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --set model.size=64 --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --set train.epochs --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --set train.epochs=many --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --set model.arch=\"resnet51\" --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --from images --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --device cuda:7x --images data/images --labels data/labels.csv --out new",
    "train --config baseline.toml --images data/images --labels data/labels.csv --out run",
    "train --config baseline.toml --images data/images --labels data/labels.csv --out run --resume --set train.seed=9",
    "retrain --from run --head keep --config baseline.toml --set model.hidden=[8] --images data/images --labels data/labels.csv --out new",
    // Models
    "convert --onnx labels.csv --out new",
    "convert --onnx unknown.onnx --out new",
    "convert --onnx model.onnx --out new --stem RGB",
    "export --from absent --out new.onnx",
    "export --from run --out new.onnx --precision int8",
    "inspect labels.csv",
    "cache --size 32 --images data/images --labels absent.csv --out cache.bin",
    // The server
    "serve --model absent.onnx",
    "serve --model model.onnx --addr here",
    "serve --model model.onnx --tls-cert labels.csv",
    "serve --model model.onnx --api-key-file absent.txt",
    "synth --out data --count 1",
];

/// Creates a folder with a small run, a model, its results, and invalid files.
fn error_workplace() -> tempfile::TempDir {
    let dir = workplace(24, "0,7");
    let path = dir.path();
    must(
        path,
        &format!("train -q --config baseline.toml {DATA} --out run"),
    );
    must(path, "export -q --engine tract --from run --out model.onnx");
    for folder in ["images", "empty"] {
        fs::create_dir(path.join(folder)).unwrap();
    }
    for id in ["a", "b"] {
        write_sample(&path.join("images"), id, [9, 99, 199, 29]);
    }
    let score = "score -q --model model.onnx --images images --engine tract --out done.csv";
    must(path, &format!("{score} --scores scores.csv"));
    for (name, text) in [
        ("labels.csv", "Id,Target\na,0\nb,7\n"),
        ("unlabelled.csv", "Id,Target\na,\nb,\n"),
        ("beyond.csv", "Id,Target\na,0\nb,28\n"),
    ] {
        fs::write(path.join(name), text).unwrap();
    }
    let mut unknown = crate::support::tiny_model();
    unknown.metadata_props.clear();
    crate::support::write_model(&path.join("unknown.onnx"), &unknown);
    dir
}

#[test]
fn most_common_errors() {
    let dir = error_workplace();
    let before = listing(dir.path());
    let text = ERRORS.iter().map(|args| error_output(dir.path(), args));
    insta::assert_snapshot!("errors", text.collect::<String>());
    assert_eq!(listing(dir.path()), before, "an error left files behind");
}

/// Returns a command line with its stderr and exit code. `DIR` replaces the temporary folder.
fn error_output(dir: &Path, args: &str) -> String {
    let run = run(dir, &format!("{args} --quiet"));
    let folder = dir.to_str().unwrap();
    let absolute = fs::canonicalize(dir).unwrap();
    let stderr = run
        .stderr
        .replace(absolute.to_str().unwrap(), "DIR")
        .replace(folder, "DIR");
    assert_ne!(run.code, Some(0), "{args}: {run:?}");
    format!("$ rgby {args}\n{stderr}[{}]\n\n", run.code.unwrap())
}
