//! Tests that a killed run, or one with a damaged checkpoint, resumes bit-identically.
//!
//! `RGBY_KILLS=50 cargo test kill` sets the number of kills; the default is 4.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{must, rgby, run, signal};
use crate::train_support::{DATA, assert_same};

/// A config with all state that a step depends on.
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

/// Starts the program. `_` is replaced by a space within an argument.
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
fn resumes_bit_identically_after_sigkill() {
    assert_resumes_after("KILL", None);
}

#[test]
#[cfg(unix)]
fn resumes_bit_identically_after_sigterm() {
    assert_resumes_after("TERM", Some(143));
}

/// Interrupts a run several times by a signal, resumes it, and compares with an uninterrupted run.
#[cfg(unix)]
fn assert_resumes_after(name: &str, code: Option<i32>) {
    let dir = workplace();
    let path = dir.path();
    let kills: u64 = std::env::var("RGBY_KILLS").map_or(4, |count| count.parse().unwrap());
    // Long enough that no run ends before it is killed.
    set_epochs(path, 12 * kills);
    finish(path, &format!("{ARGS} whole"));
    let mut handled = 0;
    for kill in 0..kills {
        let mut child = start(path, &resumable(path, "parts"));
        // Varied delays within half a second, so that kills hit different moments of a run.
        sleep(Duration::from_millis(40 + kill * 617 % 500));
        assert!(
            child.try_wait().unwrap().is_none(),
            "kill {kill} came too late"
        );
        signal(&child, name);
        let ended = child.wait().unwrap().code();
        // The signal may arrive before its handler is installed.
        assert!(ended == code || ended.is_none(), "kill {kill}: {ended:?}");
        handled += u64::from(ended == code);
    }
    assert!(2 * handled >= kills, "{handled} of {kills}");
    finish(path, &resumable(path, "parts"));
    assert_same(path, "whole", "parts");
}

fn set_epochs(path: &Path, epochs: u64) {
    let config = CONFIG.replace("epochs = 4", &format!("epochs = {epochs}"));
    fs::write(path.join("run.toml"), config).unwrap();
}

#[test]
#[cfg(unix)]
fn sigint_saves_a_checkpoint_and_exits_with_130() {
    let dir = workplace();
    let path = dir.path();
    set_epochs(path, 40);
    let mut child = start(path, &format!("{ARGS} run"));
    while !path.join("run/config.toml").exists() {
        sleep(Duration::from_millis(5));
    }
    // The run directory is locked while the run is active.
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

/// Returns the command that starts or resumes a run.
fn resumable(path: &Path, out: &str) -> String {
    let started = path.join(out).join("config.toml").exists();
    format!("{ARGS} {out}{}", if started { " --resume" } else { "" })
}

#[test]
fn resumes_from_an_older_checkpoint_if_the_last_is_damaged() {
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
            let valid = fs::read(&file).unwrap();
            let mut bytes = valid.clone();
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
