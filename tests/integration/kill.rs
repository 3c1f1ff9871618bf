//! A run that is killed at any moment, or whose checkpoint is damaged, goes on as if nothing had
//! been.
//!
//! `RGBY_KILLS=50 cargo test kill` kills as often as that; by default it is a few times.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{must, rgby, run, signal};
use crate::train_support::{DATA, assert_same};

/// Everything that a step depends on.
const CONFIG: &str = "\
[model]
arch = \"baseline\"
input_size = 32
hidden = [16]
dropout = 0.25
hidden_dropout = 0.5

[train]
epochs = 4
batch_size = 4
accumulate = 2
ema = 0.9
keep_top = 2
clip_norm = 5.0
label_smoothing = 0.05

[optimizer]
name = \"adadelta\"
schedule = \"cosine\"
warmup_steps = 3

[data]
split = \"stratified:1/4\"
sampler = \"balanced\"
augment = { dihedral = true, crop = 0.8, intensity = 0.2 }
";

const ARGS: &str = "train --config run.toml --images data/images --labels data/labels.csv \
                    --checkpoint-every 2_steps --out";

/// Starts the program; `_` stands for a space within an argument.
fn start(dir: &Path, args: &str) -> Child {
    let args = args.split_whitespace().map(|arg| arg.replace('_', " "));
    rgby()
        .args(args)
        .current_dir(dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn finish(dir: &Path, args: &str) {
    assert_eq!(start(dir, args).wait().unwrap().code(), Some(0), "{args}");
}

fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let synth = "synth --out data --count 64 --size 64 --classes 0,14,25";
    must(dir.path(), synth);
    fs::write(dir.path().join("run.toml"), CONFIG).unwrap();
    dir
}

#[test]
#[cfg(unix)]
fn killed_at_any_moment_a_run_ends_the_same() {
    interrupted_by("KILL", None);
}

#[test]
#[cfg(unix)]
fn told_to_stop_at_any_moment_a_run_ends_the_same() {
    interrupted_by("TERM", Some(143));
}

/// Sends a signal at many moments of a run, each time goes on, and compares with a run left alone.
#[cfg(unix)]
fn interrupted_by(name: &str, code: Option<i32>) {
    let dir = workplace();
    let path = dir.path();
    let kills: u64 = std::env::var("RGBY_KILLS").map_or(4, |count| count.parse().unwrap());
    // So long that no run has come to its end when it is killed.
    set_epochs(path, 12 * kills);
    finish(path, &format!("{ARGS} whole"));
    let mut as_wanted = 0;
    for kill in 0..kills {
        let mut child = start(path, &resumable(path, "parts"));
        // Odd steps through half a second, so that no two kills meet the same moment of a run.
        sleep(Duration::from_millis(40 + kill * 617 % 500));
        assert!(
            child.try_wait().unwrap().is_none(),
            "kill {kill} came too late"
        );
        signal(&child, name);
        let ended = child.wait().unwrap().code();
        // It may come before it is listened to.
        assert!(ended == code || ended.is_none(), "kill {kill}: {ended:?}");
        as_wanted += u64::from(ended == code);
    }
    assert!(2 * as_wanted >= kills, "{as_wanted} of {kills}");
    finish(path, &resumable(path, "parts"));
    assert_same(path, "whole", "parts");
}

fn set_epochs(path: &Path, epochs: u64) {
    let config = CONFIG.replace("epochs = 4", &format!("epochs = {epochs}"));
    fs::write(path.join("run.toml"), config).unwrap();
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_says_so() {
    let dir = workplace();
    let path = dir.path();
    set_epochs(path, 40);
    let mut child = start(path, &format!("{ARGS} run"));
    while !path.join("run/config.toml").exists() {
        sleep(Duration::from_millis(5));
    }
    // The folder is locked as long as the run goes on.
    let second = run(
        path,
        &format!("train --config run.toml {DATA} --out run --resume"),
    );
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("another rgby"), "{second:?}");
    finish(path, &format!("{ARGS} run --resume"));
}

/// The command that starts a run or goes on with it.
fn resumable(path: &Path, out: &str) -> String {
    let begun = path.join(out).join("config.toml").exists();
    format!("{ARGS} {out}{}", if begun { " --resume" } else { "" })
}

#[test]
fn a_damaged_checkpoint_is_never_gone_on_from() {
    let dir = workplace();
    let path = dir.path();
    finish(path, &format!("{ARGS} whole"));
    let last = path.join("whole/checkpoints/last");
    for name in [
        "weights.bpk",
        "ema.bpk",
        "optimizer.bpk",
        "checkpoint.json",
        "checkpoint.sha256",
    ] {
        for truncated in [false, true] {
            let file = last.join(name);
            let sound = fs::read(&file).unwrap();
            let mut bytes = sound.clone();
            let middle = bytes.len() / 2;
            if truncated {
                bytes.truncate(middle);
            } else {
                bytes[middle] ^= 1;
            }
            fs::write(&file, bytes).unwrap();
            let resume = format!("train --config run.toml {DATA} --out whole --resume");
            let resumed = run(path, &resume);
            assert_eq!(resumed.code, Some(0), "{name}: {resumed:?}");
            assert!(
                resumed.stderr.contains("damaged") && resumed.stderr.contains("resuming from"),
                "{name}: {resumed:?}"
            );
        }
    }
}
