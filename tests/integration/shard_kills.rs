//! Shards that are killed, begun again where they were or elsewhere, and merged.
//!
//! `RGBY_KILLS=40 cargo test --test integration shard_kills -- --nocapture` kills as often as that
//! and says what it cost; by default it is a few times.

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
        let sizes = CHANNELS.map(|channel| fs::metadata(file(channel)).unwrap().len());
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

/// What killing cost.
#[derive(Debug, Default)]
struct Toll {
    killed: usize,
    /// Processes that were begun, of which some came to their end.
    begun: usize,
    /// Samples that a killed process had written to parts.
    kept: usize,
    /// The most samples that one had opened and not written.
    most_lost: usize,
}

/// How long this machine, as busy as it is, takes from the start of a worker to its end.
fn time_of_a_shard(dir: &Path, worker: &mut Worker) -> Duration {
    let start = Instant::now();
    let ended = run(dir, &worker.args());
    let time = start.elapsed();
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    worker.move_on(dir, false);
    time
}

/// Kills so many workers at various moments; half of them are to go on in another folder, every
/// other of these without what was done.
fn kill(dir: &Path, workers: &mut [Worker], shards: &[Vec<String>], kills: usize) -> Toll {
    let mut toll = Toll::default();
    let whole = time_of_a_shard(dir, &mut workers[0]);
    while toll.killed < kills {
        let worker = &mut workers[toll.begun % SHARDS];
        toll.begun += 1;
        assert!(toll.begun < 20 * kills, "{toll:?}");
        let before = worker.done(dir);
        let mut child = spawn(dir, &worker.args());
        // From a quarter of what a shard takes to all but a tenth of it.
        sleep(whole.mul_f64(0.25 + (toll.begun * 61 % 66) as f64 / 100.0));
        signal(&child, "STOP");
        sleep(Duration::from_millis(5));
        if child.try_wait().unwrap().is_some() {
            // It has come to its end; there is nothing to be killed in this folder any more.
            worker.move_on(dir, false);
            continue;
        }
        let bytes = bytes_read(&child);
        signal(&child, "KILL");
        if child.wait().unwrap().code().is_some() {
            // It was ending as it was stopped.
            worker.move_on(dir, false);
            continue;
        }
        toll.killed += 1;
        let done = worker.done(dir);
        // Where the results are complete, there are no parts any more, and nothing is lost.
        let complete = dir.join(worker.name()).join("x.o.csv.manifest.json");
        if !complete.exists() {
            toll.kept += done - before;
            let opened = opened(dir, &shards[worker.shard], before, bytes);
            let lost = opened.saturating_sub(done - before);
            toll.most_lost = toll.most_lost.max(lost);
        }
        if toll.killed % 2 == 0 {
            worker.move_on(dir, toll.killed % 4 == 0);
        }
    }
    toll
}

/// 240 samples, two of them broken, and the ids of each shard.
fn slow_plate() -> (tempfile::TempDir, Vec<Vec<String>>) {
    let dir = plate(2);
    let path = dir.path();
    draw_images(path, 240, 384);
    let files = fs::read_dir(path.join("images")).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().path()).collect();
    for broken in files.iter().step_by(480) {
        fs::write(broken, "no image").unwrap();
    }
    let whole = score_all(path, "whole", "csv", &format!("--batch {BATCH}"));
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
fn killed_and_begun_again_anywhere_it_ends_the_same() {
    let (dir, shards) = slow_plate();
    let path = dir.path();
    let mut workers: Vec<Worker> = (0..SHARDS)
        .map(|shard| Worker { shard, folder: 0 })
        .collect();
    for worker in &workers {
        fs::create_dir(path.join(worker.name())).unwrap();
    }
    let kills = std::env::var("RGBY_KILLS").map_or(8, |count| count.parse().unwrap());
    let toll = kill(path, &mut workers, &shards, kills);
    eprintln!("{toll:?}");
    assert!(toll.kept > 0 && toll.most_lost > 0, "{toll:?}");
    // A part, and the batches on their way to it: with one decoder and one session, one each in
    // their hands and in the queue behind them, and one that is being collected.
    assert!(toll.most_lost <= PART + 5 * BATCH, "{toll:?}");
    for worker in &workers {
        let done = worker.done(path);
        let ended = run(path, &worker.args());
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        // What is in parts is not done again.
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
