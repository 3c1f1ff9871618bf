//! `rgby score` with unusual file names, a full disk, and many broken samples.

use std::fs;

use rgby::imaging::CHANNELS;

use crate::support::{
    draw_images, must, records, run, run_on_full_disk, workplace, workplace_with_samples,
    write_sample,
};

const SCORE: &str = "score --model model.onnx --images images --engine tract --out out.csv";

#[test]
fn unusual_ids_are_written_unchanged() {
    let dir = workplace();
    let path = dir.path();
    let odd = [
        "..",
        "a,b",
        "say \"so\"",
        "two\nlines",
        " space ",
        "=1+1",
        "ü",
        "-rf",
    ];
    for id in odd {
        write_sample(&path.join("images"), id, [240; 4]);
    }
    let scored = run(path, &format!("{SCORE} --scores p.csv"));
    assert_eq!(scored.code, Some(0), "{scored:?}");
    let mut sorted = odd.to_vec();
    sorted.sort_unstable();
    for file in ["out.csv", "p.csv"] {
        let ids: Vec<String> = records(path, file)
            .iter()
            .map(|row| row[0].clone())
            .collect();
        assert_eq!(ids, sorted, "{file}");
    }
    // Ids are not paths: those that lead out of the folder have no files.
    fs::write(
        path.join("ids.csv"),
        "Id\n../images/ü\n/etc/passwd\n\"a,b\"\nimages/ü\n",
    )
    .unwrap();
    let scored = run(path, &format!("{SCORE} --ids ids.csv"));
    assert_eq!(scored.code, Some(1), "{scored:?}");
    let rows = records(path, "out.csv");
    let predicted: Vec<bool> = rows.iter().map(|row| !row[1].is_empty()).collect();
    assert_eq!(predicted, [false, false, true, false]);
    let failed = records(path, "out.errors.csv");
    assert!(
        failed.iter().all(|row| row[2].contains("no image file")),
        "{failed:?}"
    );
}

#[test]
#[cfg(unix)]
fn file_names_that_are_not_utf8_are_an_error() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = workplace_with_samples();
    let images = dir.path().join("images");
    fs::copy(
        images.join("dark_red.png"),
        images.join(OsStr::from_bytes(b"d\xffrk_red.png")),
    )
    .unwrap();
    let scored = run(dir.path(), SCORE);
    assert_eq!(scored.code, Some(2), "{scored:?}");
    assert!(scored.stderr.contains("not UTF-8"), "{scored:?}");
}

#[test]
#[cfg(unix)]
fn run_resumes_after_a_full_disk() {
    let dir = workplace();
    let path = dir.path();
    draw_images(path, 64, 32);
    let args = format!("{SCORE} --scores p.csv --part-size 4");
    must(path, &args);
    let whole = ["out.csv", "p.csv"].map(|file| fs::read(path.join(file)).unwrap());
    for file in ["out.csv", "p.csv"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    // The parts fit on the disk; the probabilities of all samples do not.
    let full = run_on_full_disk(path, 30, &args);
    assert_eq!(full.code, Some(2), "{full:?}");
    assert!(full.stderr.contains("p.csv"), "{full:?}");
    assert!(!path.join("out.csv").exists() && !path.join("p.csv").exists());
    let resumed = run(path, &format!("{args} --resume"));
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(whole == ["out.csv", "p.csv"].map(|file| fs::read(path.join(file)).unwrap()));
}

#[test]
fn many_failed_samples_are_listed_and_counted() {
    const COUNT: usize = 2500;
    let dir = workplace();
    let path = dir.path();
    for id in 0..COUNT {
        for channel in CHANNELS {
            fs::write(path.join(format!("images/{id:07}_{channel}.png")), "").unwrap();
        }
    }
    let scored = run(path, SCORE);
    assert_eq!(scored.code, Some(1), "{scored:?}");
    let failed = records(path, "out.errors.csv");
    assert_eq!(
        (failed.len(), records(path, "out.csv").len()),
        (COUNT, COUNT)
    );
    assert!(
        failed.iter().all(|row| row[2].contains("empty")),
        "{:?}",
        failed[0]
    );
    let stopped = run(path, &format!("{SCORE} --max-errors 10"));
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
}
