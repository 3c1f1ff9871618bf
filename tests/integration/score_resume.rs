//! Scoring resumes after SIGKILL, SIGTERM and errors.
//!
//! `RGBY_KILLS=20 cargo test score_resume` interrupts 20 runs instead of 5.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{assert_refused, draw_images, must, read, run, signal, spawn, workplace};

const SCORE: &str = "score --model model.onnx --images images --engine tract --batch 2 \
                     --part-size 4 --decode-threads 1 --out out.csv --scores p.csv";

/// Creates a folder with the tiny model and 160 samples, one of them broken.
fn slow_workplace() -> tempfile::TempDir {
    let dir = workplace();
    let path = dir.path();
    draw_images(path, 160, 256);
    let broken = fs::read_dir(path.join("images")).unwrap().next().unwrap();
    fs::write(broken.unwrap().path(), "no image").unwrap();
    dir
}

/// Starts scoring and kills the process once a part is written.
#[cfg(unix)]
fn kill_after_a_part(dir: &Path) {
    let mut child = spawn(dir, SCORE);
    let manifest = dir.join("out.csv.parts/manifest.json");
    while !fs::read_to_string(&manifest).is_ok_and(|text| text.contains("\"first\"")) {
        assert!(child.try_wait().unwrap().is_none(), "the process ended");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn results(dir: &Path) -> [String; 3] {
    ["out.csv", "p.csv", "out.errors.csv"].map(|file| read(dir, file))
}

#[test]
#[cfg(unix)]
fn interrupted_runs_resume_byte_identically() {
    let dir = slow_workplace();
    let path = dir.path();
    let start = Instant::now();
    assert_eq!(run(path, SCORE).code, Some(1));
    let time = start.elapsed();
    let whole = results(path);
    assert_eq!(whole[0].lines().count(), 161);
    assert!(!path.join("out.csv.parts").exists());
    for file in ["out.csv", "p.csv", "out.errors.csv"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    let parts = || {
        let manifest = path.join("out.csv.parts/manifest.json");
        fs::read_to_string(manifest).map_or(0, |text| text.matches("\"first\"").count())
    };
    let kills: u32 = std::env::var("RGBY_KILLS").map_or(5, |count| count.parse().unwrap());
    let mut stopped = 0;
    for kill in 0..kills {
        let before = parts();
        let mut child = spawn(path, &format!("{SCORE} --resume"));
        // SIGKILL at any moment, or SIGTERM once another part is written.
        let name = if kill % 2 == 0 {
            sleep(time * (20 + kill * 37 % 60) / 100);
            "KILL"
        } else {
            while parts() == before && child.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(1));
            }
            "TERM"
        };
        if child.try_wait().unwrap().is_none() {
            signal(&child, name);
        }
        let code = child.wait().unwrap().code();
        stopped += u32::from(code == Some(143));
        assert!(matches!(code, None | Some(143 | 1)), "{code:?}");
    }
    // Otherwise nothing was tested. The last process may have finished.
    assert!(stopped > 0 && (parts() > 0 || path.join("out.csv").exists()));
    assert_eq!(run(path, &format!("{SCORE} --resume")).code, Some(1));
    assert!(whole == results(path));
    assert!(!path.join("out.csv.parts").exists());
    // State after a kill during the removal of the parts: the manifest is removed first.
    fs::create_dir(path.join("out.csv.parts")).unwrap();
    fs::write(path.join("out.csv.parts/000000000004.csv"), "").unwrap();
    assert_eq!(run(path, &format!("{SCORE} --resume")).code, Some(1));
    assert!(whole == results(path));
    assert!(!path.join("out.csv.parts").exists());
}

#[test]
#[cfg(unix)]
fn unfinished_runs_are_neither_overwritten_nor_mixed() {
    let dir = slow_workplace();
    let path = dir.path();
    kill_after_a_part(path);
    fs::copy(path.join("model.onnx"), path.join("other.onnx")).unwrap();
    let mut model = fs::read(path.join("other.onnx")).unwrap();
    // A second producer name changes the bytes, but not the model.
    model.extend([0x12, 1, b'x']);
    fs::write(path.join("other.onnx"), model).unwrap();
    let resume = format!("{SCORE} --resume");
    assert_refused(
        path,
        &[
            (SCORE, &["out.csv.parts", "of 160 samples", "--resume"]),
            (
                &resume.replace("model.onnx", "other.onnx"),
                &["model: SHA-256 "],
            ),
            (
                &resume.replace("--batch 2", "--batch 4"),
                &["--batch: 2 in the unfinished run, 4 now"],
            ),
        ],
    );
    fs::remove_file(path.join("other.onnx")).unwrap();
    // A changed part is detected when the result is assembled.
    let part = path.join("out.csv.parts/000000000000.csv");
    let sound = fs::read(&part).unwrap();
    let mut bytes = sound.clone();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let damaged = run(path, &resume);
    assert_eq!(damaged.code, Some(2), "{damaged:?}");
    assert!(
        damaged.stderr.contains("was changed after it was written"),
        "{damaged:?}"
    );
    assert!(!path.join("out.csv").exists());
    fs::write(&part, &sound).unwrap();
    assert_eq!(run(path, &resume).code, Some(1));
    // A run with other samples is another run.
    kill_after_a_part(path);
    for file in fs::read_dir(path.join("images")).unwrap().take(1) {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        fs::copy(&file, path.join("images").join(format!("x{name}"))).unwrap();
    }
    assert_refused(
        path,
        &[(
            &resume,
            &["samples (images or --ids): 160 with", " 161 with"],
        )],
    );
}

#[test]
fn too_many_failures_stop_the_run_and_keep_its_parts() {
    let dir = workplace();
    let path = dir.path();
    must(path, "synth --out set --count 12 --size 32");
    let mut reds: Vec<_> = fs::read_dir(path.join("set/images"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    reds.retain(|file| file.to_str().unwrap().ends_with("_red.png"));
    reds.sort();
    for file in &reds[6..9] {
        fs::write(file, "").unwrap();
    }
    let score = "score --model model.onnx --images set/images --engine tract --batch 1 --part-size 2 \
                 --out out.csv";
    let ended = run(path, &format!("{score} --max-errors 1"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for part in [
        "2 samples failed",
        "--max-errors 1",
        "8 of 12 samples are kept",
        "--resume",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert!(!path.join("out.csv").exists());
    let resumed = run(path, &format!("{score} --max-errors 3 --resume"));
    assert_eq!(resumed.code, Some(1), "{resumed:?}");
    assert_eq!(read(path, "out.csv").lines().count(), 13);
    // Parquet output.
    let parquet = run(path, &score.replace("out.csv", "out.parquet"));
    assert_eq!(parquet.code, Some(1), "{parquet:?}");
    assert!(
        fs::read(path.join("out.parquet"))
            .unwrap()
            .starts_with(b"PAR1")
    );
}
