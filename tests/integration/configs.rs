//! Runs each experiment of `configs/` with the commands in its header, on synthetic data at its
//! real input size. Only the batch size and the steps per epoch are smaller.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rgby::model::{Arch, random_export};

use crate::support::{listing, must, read, records, run, write_model};

/// Overrides that shorten a training command. Each stage also lasts only one epoch.
const CUT: &str = "--set train.batch_size=2 --set train.steps_per_epoch=2 \
                   --set train.validation_steps=1 --recalibrate 4";

/// Returns the commands in a config's header, with continuation lines joined.
fn commands(config: &str) -> Vec<String> {
    let header = config.lines().take_while(|line| line.starts_with('#'));
    let lines: Vec<&str> = header
        .filter_map(|line| line.strip_prefix("#   "))
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined.lines().map(str::to_owned).collect()
}

/// Returns the value of a flag in a command.
fn value<'a>(command: &'a str, flag: &str) -> &'a str {
    let mut words = command.split_whitespace();
    words.find(|word| *word == flag).unwrap();
    words.next().unwrap()
}

/// Replaces `onnx/export.py`, which downloads weights.
fn write_random_export(dir: &Path, command: &str) {
    let arch = Arch::from_str(value(command, "--arch"), false).unwrap();
    let out = dir.join(value(command, "--out"));
    write_model(&out, &random_export(arch, 1).unwrap());
}

/// Makes a command short enough for a test, with the absolute path of its config.
fn cut(command: &str, config: &toml::Table) -> String {
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/");
    let command = command
        .strip_prefix("rgby ")
        .unwrap()
        .replace(" --device cuda", "")
        .replace("configs/", configs);
    if !command.starts_with("train") && !command.starts_with("retrain") {
        return command;
    }
    let stages = config["train"].get("stages").and_then(|s| s.as_array());
    let epochs = stages.map_or(1, Vec::len);
    let mut cut = format!("{command} {CUT} --set train.epochs={epochs}");
    if let Some(stages) = stages {
        let mut stages = stages.clone();
        for stage in &mut stages {
            let stage = stage.as_table_mut().unwrap();
            stage.insert("epochs".into(), 1.into());
        }
        // Arguments are split at spaces.
        let stages = toml::Value::Array(stages).to_string().replace(' ', "");
        cut = format!("{cut} --set train.stages={stages}");
    }
    cut
}

/// Runs all commands of a config in `dir` and checks their output files.
fn run_config(dir: &Path, file: &PathBuf) {
    let text = fs::read_to_string(file).unwrap();
    let config: toml::Table = text.parse().unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let commands = commands(&text);
    for command in &commands {
        if command.starts_with("python") {
            write_random_export(dir, command);
            continue;
        }
        let result = run(dir, &cut(command, &config));
        assert_eq!(result.code, Some(0), "{name}: {command}: {}", result.stderr);
    }
    let rows = records(dir, &format!("runs/{name}/metrics.csv"));
    for row in &rows {
        let loss: f64 = row[1].parse().unwrap();
        assert!(loss.is_finite() && loss > 0.0, "{name}: {row:?}");
    }
    let resolved: toml::Table = read(dir, &format!("runs/{name}/config.toml"))
        .parse()
        .unwrap();
    assert_eq!(
        resolved["model"]["input_size"],
        config["model"]["input_size"]
    );
    if commands
        .iter()
        .any(|command| command.starts_with("rgby score"))
    {
        assert_eq!(records(dir, "submission.csv").len(), 2, "{name}");
        fs::remove_file(dir.join("submission.csv")).unwrap();
    }
}

#[test]
fn experiments_run_by_the_commands_in_their_headers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for (name, count) in [("train", 15), ("test", 2)] {
        let synth = format!("synth --out {name}-set --count {count} --size 96");
        must(path, &synth);
        fs::rename(path.join(format!("{name}-set/images")), path.join(name)).unwrap();
        let labels = path.join(format!("{name}-set/labels.csv"));
        fs::rename(labels, path.join(format!("{name}.csv"))).unwrap();
    }
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"));
    // Sorted by name, inception-pretrained comes before inception-retrain, which needs its result.
    let configs = listing(folder);
    assert_eq!(configs.len(), 9);
    for config in &configs {
        run_config(path, config);
    }
}
