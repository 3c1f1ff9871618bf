//! Shards that are scored by several processes, killed, begun again elsewhere, and merged.
//!
//! `RGBY_KILLS=40 cargo test --test integration shards` kills as often as that; by default it is
//! a few times.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Run, read, records, rgby, run, tiny_model_with_embeddings, workplace, write_sample,
};
use rgby::graph::Message as _;

const SCORE: &str = "score --model model.onnx --images images --engine tract";

/// The tiny model with embeddings, and `count` samples of which two are broken.
fn plate(count: u8) -> tempfile::TempDir {
    let dir = workplace();
    let model = tiny_model_with_embeddings().write_to_bytes().unwrap();
    fs::write(dir.path().join("model.onnx"), model).unwrap();
    let images = dir.path().join("images");
    for id in 0..count {
        write_sample(&images, &format!("s{id:03}"), [id, 255 - id, id / 2, 7]);
    }
    for id in [3, count - 2] {
        fs::write(images.join(format!("s{id:03}_blue.png")), "no image").unwrap();
    }
    dir
}

/// The three results and the list of failed samples, written as `name`, with their manifests.
fn results(dir: &Path, name: &str, extension: &str) -> Vec<Vec<u8>> {
    let names = ["o", "p", "e"].map(|kind| format!("{name}.{kind}.{extension}"));
    let manifests = names.clone().map(|name| format!("{name}.manifest.json"));
    let errors = format!("{name}.o.errors.csv");
    let files = names.into_iter().chain(manifests).chain([errors]);
    files
        .map(|file| fs::read(dir.join(file)).unwrap())
        .collect()
}

/// Scores into the three results `name`.
fn score_all(dir: &Path, name: &str, extension: &str, more: &str) -> Run {
    let out = |kind| format!("{name}.{kind}.{extension}");
    let (o, p, e) = (out("o"), out("p"), out("e"));
    run(
        dir,
        &format!("{SCORE} --out {o} --scores {p} --embeddings {e} {more}"),
    )
}

/// Merges the three results of all shards to `name`.
fn merge_all(dir: &Path, parts: &[String], name: &str, extension: &str, more: &str) {
    for kind in ["o", "p", "e"] {
        let file = |name: &String| format!("{name}.{kind}.{extension}");
        let parts: Vec<String> = parts.iter().map(file).collect();
        let merged = run(
            dir,
            &format!(
                "merge {} --out {name}.{kind}.{extension} {more}",
                parts.join(" ")
            ),
        );
        assert_eq!(merged.code, Some(1), "{merged:?}");
        assert!(merged.stderr.contains("2 of"), "{merged:?}");
    }
}

#[test]
fn shards_merge_to_the_bytes_of_one_run() {
    let dir = plate(40);
    let path = dir.path();
    let mut ids: Vec<String> = (0..40).map(|id| format!("s{:03}", id * 7 % 40)).collect();
    // Without images, but asked for.
    ids.push("nothing".into());
    fs::write(path.join("ids.csv"), format!("Id\n{}\n", ids.join("\n"))).unwrap();
    for extension in ["csv", "parquet"] {
        let whole = score_all(path, "whole", extension, "");
        assert_eq!(whole.code, Some(1), "{whole:?}");
        // More shards than some have samples, in the other way to count.
        let mut parts = Vec::new();
        let mut seen = BTreeSet::new();
        for shard in 1..=19 {
            let name = format!("part{shard}");
            let part = score_all(
                path,
                &name,
                extension,
                &format!("--shard {shard}/19 --json"),
            );
            let report: Value = serde_json::from_str(&part.stdout).unwrap();
            assert_eq!(report["shard"], format!("{}/19", shard % 19));
            seen.insert(report["samples"].as_u64().unwrap());
            assert!(part.stderr.contains(" of 40 samples"), "{part:?}");
            parts.push(name);
        }
        assert!(seen.contains(&0) && seen.len() > 2, "{seen:?}");
        merge_all(path, &parts, "merged", extension, "");
        assert!(results(path, "whole", extension) == results(path, "merged", extension));
    }
    // In the order of a list, which names an id without images.
    assert_eq!(
        score_all(path, "listed", "csv", "--ids ids.csv").code,
        Some(1)
    );
    let parts: Vec<String> = (0..3).map(|shard| format!("third{shard}")).collect();
    for (shard, name) in parts.iter().enumerate() {
        let more = format!("--ids ids.csv --shard {shard}/3");
        assert!(matches!(
            score_all(path, name, "csv", &more).code,
            Some(0 | 1)
        ));
    }
    for kind in ["o", "p", "e"] {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| format!("{part}.{kind}.csv"))
            .collect();
        let parts = parts.join(" ");
        let merged = run(
            path,
            &format!("merge {parts} --ids ids.csv --out again.{kind}.csv"),
        );
        assert_eq!(merged.code, Some(1), "{merged:?}");
    }
    assert!(results(path, "listed", "csv") == results(path, "again", "csv"));
}

#[test]
fn the_scheduler_names_the_shard_only_where_it_was_asked_to() {
    let dir = plate(12);
    let path = dir.path();
    let score = |more: &str, variables: &[(&str, &str)]| {
        let args = format!("{SCORE} --out out.csv --failed-ok {more}");
        let output = rgby()
            .args(args.split_whitespace())
            .envs(variables.iter().copied())
            .current_dir(path)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        (stderr, read(path, "out.csv"))
    };
    let (said, whole) = score("", &[("SLURM_ARRAY_TASK_ID", "1")]);
    assert_eq!(whole.lines().count(), 13);
    let unasked =
        |line: &&str| line.contains("SLURM_ARRAY_TASK_ID") && line.contains("--shard auto");
    assert_eq!(said.lines().filter(unasked).count(), 1, "{said}");
    let (said, _) = score("--shard 1/2", &[]);
    assert!(said.contains("shard 1/2: "), "{said}");
    let given = read(path, "out.csv");
    assert!(given.lines().count() < 13);
    let (said, kubernetes) = score("--shards 2", &[("JOB_COMPLETION_INDEX", "1")]);
    assert!(
        said.contains("shard 1/2, by JOB_COMPLETION_INDEX: "),
        "{said}"
    );
    let slurm = [("ID", "1"), ("MIN", "1"), ("MAX", "2"), ("COUNT", "2")];
    let slurm = slurm.map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value));
    let slurm: Vec<(&str, &str)> = slurm
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let (said, slurm) = score("--shard auto", &slurm);
    assert!(
        said.contains("shard 1/2, by SLURM_ARRAY_TASK_ID: "),
        "{said}"
    );
    assert!(given == kubernetes && given == slurm);
}

#[test]
fn what_is_finished_is_not_scored_again() {
    let dir = plate(12);
    let path = dir.path();
    let first = score_all(path, "a", "csv", "--resume --shard 0/2");
    assert!(matches!(first.code, Some(0 | 1)), "{first:?}");
    let before = results_if_any(path);
    let again = score_all(path, "a", "csv", "--resume --shard 0/2 --json");
    assert_eq!(again.code, first.code, "{again:?}");
    assert!(again.stderr.contains("scored already"), "{again:?}");
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(report["resumed_at"], report["samples"]);
    assert!(before == results_if_any(path));
    // Another shard, model or threshold must not write over it, unless that is said.
    for (more, wanted) in [
        ("--shard 1/2", "another --shard"),
        ("--shard 0/3", "another --shard"),
        ("", "another --shard"),
        ("--shard 0/2 --batch 3", "another --batch"),
        ("--shard 0/2 --threshold 0.3", "another --threshold"),
    ] {
        let refused = score_all(path, "a", "csv", &format!("--resume {more}"));
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(
            refused.stderr.contains("a finished result, of shard 0/2"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused:?}");
    }
    assert!(before == results_if_any(path));
    // What is not as it was written is written again.
    fs::write(path.join("a.p.csv"), "Id\n").unwrap();
    let mended = score_all(path, "a", "csv", "--resume --shard 0/2");
    assert_eq!(mended.code, first.code, "{mended:?}");
    assert!(before == results_if_any(path));
    let over = score_all(path, "a", "csv", "--shard 1/2");
    assert!(matches!(over.code, Some(0 | 1)), "{over:?}");
    assert!(before != results_if_any(path));
}

/// All files beside the images, by name.
fn results_if_any(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap());
    files.into_iter().map(read).collect()
}

const SHARDS: usize = 8;
const PART: usize = 4;
/// Samples of a batch.
const BATCH: usize = 2;

/// A worker of the kill test: its shard, and the folder that it writes to now.
struct Worker {
    shard: usize,
    folder: usize,
}

impl Worker {
    fn name(&self) -> String {
        format!("w{}-{}", self.shard, self.folder)
    }

    fn args(&self) -> String {
        let (name, shard) = (self.name(), self.shard);
        format!(
            "{SCORE} --batch {BATCH} --part-size {PART} --sessions 1 --decode-threads 1 --resume \
             --shard {shard}/{SHARDS} --out {name}/x.o.csv --scores {name}/x.p.csv \
             --embeddings {name}/x.e.csv --json"
        )
    }

    /// Samples of its parts.
    fn done(&self, dir: &Path) -> usize {
        let manifest = dir.join(self.name()).join("x.o.csv.parts/manifest.json");
        let Ok(text) = fs::read(manifest) else {
            return 0;
        };
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let parts = manifest["parts"].as_array().unwrap();
        let sizes: Vec<u64> = parts
            .iter()
            .map(|p| p["samples"].as_u64().unwrap())
            .collect();
        assert!(sizes.iter().all(|size| *size as usize <= PART), "{sizes:?}");
        sizes.iter().sum::<u64>() as usize
    }

    /// Goes to another folder, with what is in this one, or with nothing.
    fn move_on(&mut self, dir: &Path, copied: bool) {
        let from = dir.join(self.name());
        self.folder += 1;
        let to = dir.join(self.name());
        if copied {
            let copied = Command::new("cp").arg("-r").args([from, to]).status();
            assert!(copied.unwrap().success());
        } else {
            fs::create_dir(to).unwrap();
        }
    }

    fn start(&self, dir: &Path) -> Child {
        let mut command = rgby();
        command
            .args(self.args().split_whitespace())
            .current_dir(dir);
        command
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([name, &pid]).status();
    assert!(status.unwrap().success());
}

/// Bytes that a process, which is stopped, has read so far.
fn bytes_read(child: &Child) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    io.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How many samples a worker that began at `done` had opened when it had read so many bytes.
fn opened(dir: &Path, shard: &[String], done: usize, bytes: u64) -> usize {
    let size = |id: &String| {
        let file = |channel| dir.join(format!("images/{id}_{channel}.png"));
        let sizes =
            ["red", "green", "blue", "yellow"].map(|c| fs::metadata(file(c)).unwrap().len());
        sizes.iter().sum::<u64>()
    };
    let mut left = bytes;
    let whole = shard[done..].iter().take_while(|id| {
        let fits = left >= size(id);
        left = left.saturating_sub(size(id));
        fits
    });
    whole.count()
}

#[test]
#[cfg(target_os = "linux")]
fn killed_and_begun_again_anywhere_it_ends_the_same() {
    let dir = plate(2);
    let path = dir.path();
    fs::remove_dir_all(path.join("images")).unwrap();
    assert_eq!(
        run(path, "synth --out set --count 240 --size 384").code,
        Some(0)
    );
    fs::rename(path.join("set/images"), path.join("images")).unwrap();
    let images: BTreeSet<_> = fs::read_dir(path.join("images"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    for broken in images.iter().step_by(480) {
        fs::write(broken, "no image").unwrap();
    }
    let whole = score_all(path, "whole", "csv", &format!("--batch {BATCH}"));
    assert_eq!(whole.code, Some(1), "{whole:?}");
    let ids: Vec<String> = records(path, "whole.o.csv")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let shards: Vec<Vec<String>> = (0..SHARDS as u32)
        .map(|index| {
            let shard = rgby::score::Shard::new(index, SHARDS as u32).unwrap();
            ids.iter().filter(|id| shard.holds(id)).cloned().collect()
        })
        .collect();
    let mut workers: Vec<Worker> = (0..SHARDS)
        .map(|shard| Worker { shard, folder: 0 })
        .collect();
    for worker in &workers {
        fs::create_dir(path.join(worker.name())).unwrap();
    }
    let kills: usize = std::env::var("RGBY_KILLS").map_or(8, |count| count.parse().unwrap());
    let (mut killed, mut tried, mut kept, mut most_lost) = (0, 0, 0, 0);
    while killed < kills {
        let worker = &mut workers[tried % SHARDS];
        // Every other process is begun in another folder: half of those with what was done.
        if tried >= SHARDS && (tried / SHARDS + tried) % 2 == 0 {
            worker.move_on(path, (tried / SHARDS) % 2 == 1);
        }
        tried += 1;
        assert!(
            tried < 20 * kills,
            "{killed} of {tried} processes could be killed"
        );
        let before = worker.done(path);
        let mut child = worker.start(path);
        sleep(Duration::from_millis(60 + tried as u64 * 61 % 240));
        if child.try_wait().unwrap().is_some() {
            worker.move_on(path, false);
            continue;
        }
        signal(&child, "-STOP");
        let bytes = bytes_read(&child);
        signal(&child, "-KILL");
        assert_eq!(child.wait().unwrap().code(), None);
        killed += 1;
        let done = worker.done(path);
        // Where the files were being put together, there are no parts any more.
        if done >= before {
            kept += done - before;
            let opened = opened(path, &shards[worker.shard], before, bytes);
            most_lost = most_lost.max(opened.saturating_sub(done - before));
        }
    }
    let in_flight = BATCH * 3;
    eprintln!(
        "{killed} of {tried} processes killed; {kept} samples were kept by parts, at most \
         {most_lost} were opened and lost"
    );
    assert!(kept > 0 && most_lost > 0);
    assert!(most_lost <= PART + in_flight, "{most_lost}");
    for worker in &workers {
        let done = worker.done(path);
        let ended = run(path, &worker.args());
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let resumed_at = report["resumed_at"].as_u64().unwrap() as usize;
        let finished = ended.stderr.contains("scored already");
        assert!(resumed_at == done || finished, "{done}: {report}");
    }
    let parts: Vec<String> = workers
        .iter()
        .map(|worker| format!("{}/x", worker.name()))
        .collect();
    merge_all(path, &parts, "merged", "csv", "");
    assert!(results(path, "whole", "csv") == results(path, "merged", "csv"));
}
