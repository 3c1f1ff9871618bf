//! `rgby check-data`: exit codes, text, JSON and CSV.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{assert_refused, records, run};

const CHECK: &str = "check-data --images data/images --labels data/labels.csv";

/// Creates a synthetic data set in the folder `data`; returns its first two ids.
fn data_set(count: usize) -> (tempfile::TempDir, [String; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let synth = format!("synth --out data --count {count} --size 64 --classes 0,25");
    assert_eq!(run(dir.path(), &synth).code, Some(0));
    let ids = records(dir.path(), "data/labels.csv");
    let ids = [ids[0][0].clone(), ids[1][0].clone()];
    (dir, ids)
}

fn file(dir: &Path, id: &str, channel: &str) -> std::path::PathBuf {
    dir.join(format!("data/images/{id}_{channel}.png"))
}

#[test]
fn exits_with_0_and_prints_statistics_without_problems() {
    let (dir, _) = data_set(12);
    let text = run(dir.path(), CHECK);
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "12 labelled samples, 12 with images: 12 of 64×64 pixels",
        "yellow",
        "no errors",
    ] {
        assert!(text.stdout.contains(part), "no {part} in {}", text.stdout);
    }
    let json = run(dir.path(), &format!("{CHECK} --json"));
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["errors"], 0);
    assert_eq!(json["channels"][0]["images"], 12);
    assert_eq!(json["channels"][0]["pixels"], 12 * 64 * 64);
    assert_eq!(json["classes"].as_array().unwrap().len(), 28);
    assert!(json["kinds"]["absent-class"]["count"].as_u64().unwrap() >= 26);
}

#[test]
fn exits_with_1_and_lists_all_problems_in_the_file() {
    let (dir, [one, two]) = data_set(12);
    let path = dir.path();
    fs::write(file(path, &one, "red"), "no image").unwrap();
    fs::remove_file(file(path, &two, "blue")).unwrap();
    let labels = path.join("data/labels.csv");
    let mut text = fs::read_to_string(&labels).unwrap();
    for number in 0..7 {
        text += &format!("gone{number},0\n");
    }
    fs::write(&labels, text).unwrap();
    let shown = run(path, &format!("{CHECK} --show 3 --out problems.csv"));
    assert_eq!(shown.code, Some(1), "{shown:?}");
    for part in [
        "error unreadable: 1",
        "error missing-channel: 1",
        "error no-images: 7",
        "`gone2`",
        "… and 4 more",
        "9 errors",
    ] {
        assert!(shown.stdout.contains(part), "no {part} in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("`gone3`"), "{}", shown.stdout);
    let problems = records(path, "problems.csv");
    let errors: Vec<_> = problems.iter().filter(|row| row[0] == "error").collect();
    assert_eq!(errors.len(), 9);
    let unreadable = errors.iter().find(|row| row[1] == "unreadable").unwrap();
    assert_eq!(unreadable[2], one);
    assert!(
        unreadable[3].ends_with(&format!("{one}_red.png")),
        "{unreadable:?}"
    );
    let allowed = run(
        path,
        &format!("{CHECK} --allow unreadable,missing-channel,no-images --quiet"),
    );
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
}

#[test]
fn exits_with_2_without_labels_or_images() {
    let (dir, _) = data_set(2);
    fs::write(dir.path().join("bare.csv"), "a,b\n1,2\n").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert_refused(
        dir.path(),
        &[
            (
                "check-data --images nowhere --labels data/labels.csv",
                &["nowhere"],
            ),
            (
                "check-data --images empty --labels data/labels.csv",
                &["no image files in empty"],
            ),
            (
                "check-data --images data/images --labels bare.csv",
                &["bare.csv", "`Id`"],
            ),
            (
                "check-data --images data/images --labels none.csv",
                &["none.csv"],
            ),
            (
                "check-data --images data/images --labels data/labels.csv --out no/such/folder.csv",
                &["no/such/folder.csv"],
            ),
        ],
    );
}
