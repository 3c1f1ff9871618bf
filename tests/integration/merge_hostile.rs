//! `rgby merge` with invalid parts, and with parts without manifests.

use std::fs;
use std::path::Path;

use crate::support::{
    assert_refused, change_spec, not_applicable, read, records, run, tiny_model, workplace,
    write_model, write_sample,
};

const SCORE: &str = "score --model model.onnx --images images --engine tract --quiet";
const MERGE: &str = "merge a.csv b.csv c.csv --out out.csv";

/// Creates a folder with three shards, `a.csv` to `c.csv`, of 30 samples without failures.
fn three_shards() -> tempfile::TempDir {
    let dir = workplace();
    let path = dir.path();
    for id in 0..30 {
        write_sample(&path.join("images"), &format!("s{id:02}"), [id * 8; 4]);
    }
    for (shard, name) in ["a", "b", "c"].into_iter().enumerate() {
        score(path, &format!("--shard {shard}/3 --out {name}.csv"));
    }
    dir
}

fn score(dir: &Path, more: &str) {
    let scored = run(dir, &format!("{SCORE} {more}"));
    assert!(matches!(scored.code, Some(0 | 1)), "{scored:?}");
}

/// Replaces the first occurrence of `from` in a text file.
fn change(dir: &Path, file: &str, from: &str, to: &str) {
    let text = read(dir, file);
    assert!(text.contains(from), "{file} has no {from}: {text}");
    fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn missing_and_duplicate_parts_are_named() {
    let dir = three_shards();
    let path = dir.path();
    for extension in ["csv", "csv.manifest.json"] {
        fs::copy(
            path.join(format!("a.{extension}")),
            path.join(format!("copy.{extension}")),
        )
        .unwrap();
    }
    score(path, "--out whole.csv");
    score(path, "--shard 0/4 --out quarter.csv");
    assert_refused(
        path,
        &[
            (
                "merge a.csv c.csv --out out.csv",
                &["1 of 3 shards is missing: 1/3"],
            ),
            (
                "merge c.csv --out out.csv",
                &["2 of 3 shards are missing: 0/3, 1/3"],
            ),
            (
                "merge a.csv b.csv a.csv c.csv --out out.csv",
                &["a.csv and a.csv are one file"],
            ),
            ("merge a.csv ./a.csv --out out.csv", &["are one file"]),
            (
                "merge a.csv b.csv c.csv copy.csv --out out.csv",
                &["a.csv and copy.csv are both shard 0/3"],
            ),
            (
                "merge a.csv b.csv quarter.csv --out out.csv",
                &["different numbers of shards"],
            ),
            (
                "merge a.csv whole.csv --out out.csv",
                &["one is a shard and the other is not"],
            ),
            ("merge a.csv none.csv --out out.csv", &["none.csv"]),
            (
                "merge a.csv b.csv --out a.csv",
                &["a.csv is one of the parts"],
            ),
            (
                "merge a.csv b.csv c.csv --out images",
                &["images is a folder"],
            ),
            (
                "merge a.csv b.csv c.csv --out out.parquet",
                &["both be CSV or both be Parquet"],
            ),
            (
                "merge a.csv b.csv c.csv --out none/out.csv",
                &["there is no folder"],
            ),
            ("merge --out out.csv", &["PART"]),
            (
                "merge a.csv.manifest.json --out out.csv",
                &["not a result of `rgby score`"],
            ),
        ],
    );
    let merged = run(path, MERGE);
    assert_eq!(
        (merged.code, read(path, "out.csv")),
        (Some(0), read(path, "whole.csv"))
    );
    let [merged, whole] = ["out", "whole"].map(|n| read(path, &format!("{n}.csv.manifest.json")));
    assert_eq!(merged, whole);
}

#[test]
fn parts_of_different_runs_are_errors() {
    let dir = three_shards();
    let path = dir.path();
    let again = |more: &str| score(path, &format!("--shard 1/3 --out b.csv {more}"));
    let refused = |part: &str| assert_refused(path, &[(MERGE, &["a.csv and b.csv", part])]);
    again("--batch 3");
    refused("--batch: 8 in a.csv, 3 in b.csv");
    again("--threshold 0.4");
    refused("--threshold: ");
    again("--tta 8");
    refused("--tta: 1 in a.csv, 8 in b.csv");
    again("--scores b2.csv");
    let different = "merge a.csv b2.csv c.csv --out out.csv";
    assert_refused(
        path,
        &[(different, &["a.csv and b2.csv", "columns differ"])],
    );
    let sound = fs::read(path.join("model.onnx")).unwrap();
    let mut other = tiny_model();
    change_spec(&mut other, |spec| spec.thresholds[3] = 0.25);
    write_model(&path.join("model.onnx"), &other);
    again("");
    refused("model: SHA-256 ");
    fs::write(path.join("model.onnx"), sound).unwrap();
    again("");
    change(
        path,
        "b.csv.manifest.json",
        "tract (embedded)",
        "ONNX Runtime 1.99.0",
    );
    refused("engine: rgby ");
    again("");
    assert_eq!(run(path, MERGE).code, Some(0));
}

#[test]
fn parts_that_contradict_their_manifest_are_errors() {
    let dir = three_shards();
    let path = dir.path();
    let files = ["b.csv", "b.csv.manifest.json"];
    let sound = files.map(|file| read(path, file));
    let rows = sound[0].lines().count() - 1;
    let refused = |parts: &[&str]| {
        assert_refused(path, &[(MERGE, parts)]);
        for (file, text) in files.iter().zip(&sound) {
            fs::write(path.join(file), text).unwrap();
        }
    };
    // A changed byte, and a missing byte.
    change(path, "b.csv", "s0", "s1");
    refused(&["b.csv", "its bytes were changed"]);
    fs::write(path.join("b.csv"), &sound[0][..sound[0].len() - 1]).unwrap();
    refused(&["b.csv", "its bytes were changed"]);
    change(path, files[1], "\"format\": 1", "\"format\": 2");
    refused(&["b.csv.manifest.json", "has format 2"]);
    fs::write(path.join(files[1]), &sound[1][..sound[1].len() / 2]).unwrap();
    refused(&["b.csv.manifest.json", "not a valid manifest"]);
    fs::write(path.join(files[1]), "\u{0}\u{ff}").unwrap();
    refused(&["b.csv.manifest.json", "not a valid manifest"]);
    let count = format!("\"count\": {rows}");
    change(path, files[1], &count, "\"count\": 7000");
    refused(&[
        "b.csv",
        &format!("has {rows} rows, but 7000 in its manifest"),
    ]);
    change(path, files[1], "1/3", "5/4000000000");
    refused(&["b.csv", "does not belong to shard 5/4000000000"]);
    change(path, files[1], "\"listed\": 30", "\"listed\": 31");
    refused(&["a list of 30 samples", "a list of 31", "--ids"]);
    change(
        path,
        files[1],
        "\"failures\": []",
        "\"failures\": [{\"id\":\"x\",\"file\":\"\",\"error\":\"\"}]",
    );
    refused(&["b.csv", "lists `x` as failed"]);
    fs::remove_file(path.join(files[1])).unwrap();
    refused(&["a.csv has a manifest and b.csv has none"]);
    assert_eq!(run(path, MERGE).code, Some(0));
}

#[test]
fn missing_shards_are_summarized_for_a_huge_shard_count() {
    let dir = three_shards();
    let path = dir.path();
    fs::write(path.join("e.csv"), "Id,Predicted\n").unwrap();
    score(path, "--shard 2/4000000000 --out e.csv");
    let missing = "3999999999 of 4000000000 shards are missing: 0/4000000000, 1/4000000000, 3/";
    assert_refused(path, &[("merge e.csv --out out.csv", &[missing, "…"])]);
}

#[test]
fn images_that_changed_between_shards_are_an_error() {
    let dir = three_shards();
    let path = dir.path();
    // The new sample belongs to the first shard, which is finished.
    let first: rgby::score::Shard = "0/3".parse().unwrap();
    let new = (0..1000)
        .map(|id| format!("t{id}"))
        .find(|id| first.holds(id))
        .unwrap();
    write_sample(&path.join("images"), &new, [9; 4]);
    score(path, "--shard 1/3 --out b.csv");
    let ids: Vec<String> = (0..30).map(|id| format!("s{id:02}")).collect();
    let list = |ids: &[String]| format!("Id\n{}\n", ids.join("\n"));
    fs::write(path.join("before.csv"), list(&ids)).unwrap();
    fs::write(
        path.join("after.csv"),
        list(&[ids.clone(), vec![new.clone()]].concat()),
    )
    .unwrap();
    fs::write(path.join("fewer.csv"), list(&ids[3..])).unwrap();
    let with = |ids: &str| format!("{MERGE} --ids {ids}.csv");
    let missing = format!("1 id is not in any part ({new}), 0 ids are not in --ids (none)");
    assert_refused(
        path,
        &[
            (
                MERGE,
                &[
                    "a list of 30 samples",
                    "a list of 31",
                    "the images changed",
                    "--ids",
                ],
            ),
            (&with("after"), &[&missing]),
            (
                &with("fewer"),
                &[
                    "0 ids are not in any part",
                    "3 ids are not in --ids (s00, s01, s02)",
                ],
            ),
            (&with("none"), &["none.csv"]),
        ],
    );
    // The samples that existed before all shards are complete.
    assert_eq!(run(path, &with("before")).code, Some(0));
    assert_eq!(records(path, "out.csv").len(), 30);
    score(path, "--shard 0/3 --out a.csv");
    score(path, "--shard 2/3 --out c.csv");
    assert_eq!(run(path, MERGE).code, Some(0));
    assert_eq!(records(path, "out.csv").len(), 31);
}

#[test]
fn ids_are_case_sensitive() {
    let dir = workplace();
    let path = dir.path();
    let images = path.join("images");
    write_sample(&images, "cell", [10; 4]);
    write_sample(&images, "Cell", [240; 4]);
    if fs::read_dir(&images).unwrap().count() < 8 {
        not_applicable("this file system is not case-sensitive");
        return;
    }
    score(path, "--out whole.csv");
    for shard in 0..2 {
        score(path, &format!("--shard {shard}/2 --out {shard}.csv"));
    }
    assert_eq!(run(path, "merge 1.csv 0.csv --out out.csv").code, Some(0));
    assert_eq!(read(path, "out.csv"), read(path, "whole.csv"));
    let ids: Vec<String> = records(path, "out.csv")
        .iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(ids, ["Cell", "cell"]);
}

#[test]
fn parts_without_manifests_merge_with_a_note() {
    let dir = workplace();
    let path = dir.path();
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    write("a.csv", "Id,Predicted\nd,1 2\nb,\n");
    write("b.csv", "Id,Predicted\n\"a,1\",0\nc,\n");
    write("b.errors.csv", "Id,File,Error\nc,c_red.png,is empty\n");
    write("twice.csv", "Id,Predicted\nb,3\n");
    write("itself.csv", "Id,Predicted\nx,3\nx,3\n");
    write("short.csv", "Id,Predicted\nx\n");
    write("other.csv", "Name,Predicted\nx,1\n");
    write("scores.csv", "Id,red,green\nx,0.1,0.2\n");
    write("text.parquet", "Id,red,green\nx,0.1,0.2\n");
    write("empty.csv", "");
    write("ids.csv", "Id\nd\nc\nb\n\"a,1\"\n");
    write("out.csv.manifest.json", "of an earlier run");
    fs::write(path.join("bytes.csv"), b"Id,Predicted\n\xff,1\n").unwrap();
    let merge = |parts: &str| format!("merge {parts} --out out.csv");
    assert_refused(
        path,
        &[
            (
                &merge("a.csv twice.csv"),
                &["the id `b` occurs twice: in a.csv and in twice.csv"],
            ),
            (&merge("itself.csv"), &["the id `x` occurs twice"]),
            (&merge("other.csv"), &["other.csv: is not a result"]),
            (&merge("empty.csv"), &["empty.csv: is not a result"]),
            (&merge("a.csv scores.csv"), &["columns differ"]),
            (
                &merge("b.errors.csv"),
                &["b.errors.csv: is a list of failed samples"],
            ),
        ],
    );
    // `assert_refused` does not apply: messages of the libraries contain `error: ` as well.
    for (args, expected) in [
        (
            merge("a.csv short.csv"),
            "short.csv: cannot be read as CSV: ",
        ),
        (merge("bytes.csv"), "bytes.csv: cannot be read as CSV: "),
        (
            "merge text.parquet --out out.parquet".into(),
            "text.parquet: cannot be read as Parquet: ",
        ),
    ] {
        let refused = run(path, &args);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
        assert!(!path.join("out.csv").exists() && !path.join("out.parquet").exists());
    }
    let merged = run(path, "merge b.csv b.errors.csv a.csv --out out.csv");
    assert_eq!(merged.code, Some(1), "{merged:?}");
    let note = "no part has a manifest: it was not checked that they are of one model";
    assert_eq!(
        merged
            .stderr
            .lines()
            .filter(|line| line.starts_with(note))
            .count(),
        1
    );
    assert_eq!(
        read(path, "out.csv"),
        "Id,Predicted\n\"a,1\",0\nb,\nc,\nd,1 2\n"
    );
    assert_eq!(read(path, "out.errors.csv"), read(path, "b.errors.csv"));
    assert!(!path.join("out.csv.manifest.json").exists());
    let merged = run(
        path,
        "merge b.csv a.csv --out out.csv --ids ids.csv --failed-ok",
    );
    assert_eq!(merged.code, Some(0), "{merged:?}");
    assert_eq!(
        read(path, "out.csv"),
        "Id,Predicted\nd,1 2\nc,\nb,\n\"a,1\",0\n"
    );
    write("b.errors.csv", "not a list\n");
    assert_refused(
        path,
        &[(
            &merge("a.csv b.csv"),
            &["b.errors.csv", "not a list of failed samples"],
        )],
    );
}
