//! Shards that are killed, resumed in the same or another folder, and merged.
//!
//! `RGBY_KILLS=40 cargo test --test integration shard_kills -- --nocapture` kills 40 processes
//! instead of 8 and prints the [`KillStatistics`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rgby::imaging::CHANNELS;
use rgby::score::Shard;
use serde_json::Value;

use crate::shards::{SCORE, merge_all, plate, results, score_all};
use crate::support::{draw_images, records, run, signal, spawn};

const SHARDS: usize = 8;
const PART_SIZE: usize = 4;
const BATCH_SIZE: usize = 2;

/// A shard, and the number of the folder that its next process writes to.
struct ShardWorker {
    shard: usize,
    folder: usize,
}

impl ShardWorker {
    fn name(&self) -> String {
        format!("w{}-{}", self.shard, self.folder)
    }

    fn args(&self) -> String {
        let (name, shard) = (self.name(), self.shard);
        format!(
            "{SCORE} --batch {BATCH_SIZE} --part-size {PART_SIZE} --sessions 1 --decode-threads 1 \
             --resume --shard {shard}/{SHARDS} --out {name}/x.o.csv --scores {name}/x.p.csv \
             --embeddings {name}/x.e.csv --json"
        )
    }

    /// Returns the number of samples in its parts.
    fn finished_samples(&self, dir: &Path) -> usize {
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
        assert!(
            sizes.iter().all(|size| *size as usize <= PART_SIZE),
            "{sizes:?}"
        );
        sizes.iter().sum::<u64>() as usize
    }

    /// Switches to a new folder: a copy of the current one if `copied`, otherwise an empty one.
    fn change_folder(&mut self, dir: &Path, copied: bool) {
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
}

/// Returns the number of bytes that a process has read.
fn bytes_read(child: &Child) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    io.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns how many samples a process has read completely.
///
/// It started after the first `done` samples of the shard and has read `bytes` bytes.
fn samples_read(dir: &Path, shard: &[String], done: usize, bytes: u64) -> usize {
    let size = |id: &String| {
        let file = |channel| dir.join(format!("images/{id}_{channel}.png"));
        let sizes = CHANNELS.map(|channel| fs::metadata(file(channel)).unwrap().len());
        sizes.iter().sum::<u64>()
    };
    let mut left = bytes;
    let complete = shard[done..].iter().take_while(|id| {
        let fits = left >= size(id);
        left = left.saturating_sub(size(id));
        fits
    });
    complete.count()
}

#[derive(Debug, Default)]
struct KillStatistics {
    killed: usize,
    /// Processes that were started; some finished before the signal.
    started: usize,
    /// Samples that killed processes had written to parts.
    kept: usize,
    /// Maximum number of samples that a process had read but not written.
    max_lost: usize,
}

/// Measures how long a shard takes, so that the kills fit the load of the machine.
fn measure_shard(dir: &Path, worker: &mut ShardWorker) -> Duration {
    let start = Instant::now();
    let ended = run(dir, &worker.args());
    let time = start.elapsed();
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    worker.change_folder(dir, false);
    time
}

/// Kills `kills` processes at various moments. After every second kill, the shard resumes in
/// another folder, alternately without and with its parts.
fn kill_processes(
    dir: &Path,
    workers: &mut [ShardWorker],
    shards: &[Vec<String>],
    kills: usize,
) -> KillStatistics {
    let mut statistics = KillStatistics::default();
    let duration = measure_shard(dir, &mut workers[0]);
    while statistics.killed < kills {
        let worker = &mut workers[statistics.started % SHARDS];
        statistics.started += 1;
        assert!(statistics.started < 20 * kills, "{statistics:?}");
        let before = worker.finished_samples(dir);
        let mut child = spawn(dir, &worker.args());
        // After 25 % to 90 % of the duration of a shard.
        sleep(duration.mul_f64(0.25 + (statistics.started * 61 % 66) as f64 / 100.0));
        signal(&child, "STOP");
        sleep(Duration::from_millis(5));
        if child.try_wait().unwrap().is_some() {
            // The process finished before the signal, so this folder is complete.
            worker.change_folder(dir, false);
            continue;
        }
        let bytes = bytes_read(&child);
        signal(&child, "KILL");
        if child.wait().unwrap().code().is_some() {
            // The process was exiting when it was stopped.
            worker.change_folder(dir, false);
            continue;
        }
        statistics.killed += 1;
        let done = worker.finished_samples(dir);
        // Complete results have no parts, and nothing is lost.
        let complete = dir.join(worker.name()).join("x.o.csv.manifest.json");
        if !complete.exists() {
            statistics.kept += done - before;
            let read = samples_read(dir, &shards[worker.shard], before, bytes);
            let lost = read.saturating_sub(done - before);
            statistics.max_lost = statistics.max_lost.max(lost);
        }
        if statistics.killed % 2 == 0 {
            worker.change_folder(dir, statistics.killed % 4 == 0);
        }
    }
    statistics
}

/// Creates 240 samples, two of them broken. Returns the folder and the ids of each shard.
fn slow_plate() -> (tempfile::TempDir, Vec<Vec<String>>) {
    let dir = plate(2);
    let path = dir.path();
    draw_images(path, 240, 384);
    let files = fs::read_dir(path.join("images")).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().path()).collect();
    for broken in files.iter().step_by(480) {
        fs::write(broken, "no image").unwrap();
    }
    let whole = score_all(path, "whole", "csv", &format!("--batch {BATCH_SIZE}"));
    assert_eq!(whole.code, Some(1), "{whole:?}");
    let rows = records(path, "whole.o.csv");
    let ids = |index| {
        let shard = Shard::new(index, SHARDS as u32).unwrap();
        let ids = rows.iter().map(|row| row[0].clone());
        ids.filter(|id| shard.holds(id)).collect()
    };
    let shards = (0..SHARDS as u32).map(ids).collect();
    (dir, shards)
}

#[test]
fn killed_shards_resume_and_merge_byte_identically() {
    let (dir, shards) = slow_plate();
    let path = dir.path();
    let mut workers: Vec<ShardWorker> = (0..SHARDS)
        .map(|shard| ShardWorker { shard, folder: 0 })
        .collect();
    for worker in &workers {
        fs::create_dir(path.join(worker.name())).unwrap();
    }
    let kills = std::env::var("RGBY_KILLS").map_or(8, |count| count.parse().unwrap());
    let statistics = kill_processes(path, &mut workers, &shards, kills);
    eprintln!("{statistics:?}");
    assert!(
        statistics.kept > 0 && statistics.max_lost > 0,
        "{statistics:?}"
    );
    // One part and five batches. The decoder and the session each hold one batch and have one in
    // their queue; one batch is being collected.
    assert!(
        statistics.max_lost <= PART_SIZE + 5 * BATCH_SIZE,
        "{statistics:?}"
    );
    for worker in &workers {
        let done = worker.finished_samples(path);
        let ended = run(path, &worker.args());
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        // Samples in parts are not scored again.
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
