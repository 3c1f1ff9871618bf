//! The page of a training run and its charts on edge cases.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;

fn rows(count: u32) -> Vec<EpochRow> {
    let row = |epoch| EpochRow {
        epoch,
        train_loss: 0.7 / f64::from(epoch),
        valid_loss: Some(0.75 / f64::from(epoch).sqrt() + f64::from(epoch / 8)),
        f1_mean: 0.9 - 0.8 / f64::from(epoch),
        f1_std: 0.1,
        f1_min: 0.0,
        f1_max: 1.0 - 0.5 / f64::from(epoch),
        lr: 1e-4,
    };
    (1..=count).map(row).collect()
}

fn timing(count: u32) -> Vec<TimingRow> {
    let row = |epoch| TimingRow {
        epoch,
        seconds: 12.5,
        images_per_s: 640.0 + f64::from(epoch % 5),
        waited: 0.5,
    };
    (1..=count).map(row).collect()
}

/// Returns the page of a finished run with these epochs.
fn run<'a>(rows: &'a [EpochRow], timing: &'a [TimingRow]) -> RunPage<'a> {
    RunPage {
        name: "run".into(),
        progress: RunStatus::Finished,
        epochs: rows.len() as u32,
        rows,
        timing,
        stages: Vec::new(),
        remarks: Vec::new(),
        about: Vec::new(),
        config: String::new(),
    }
}

/// Writes the page of these epochs and returns it; the charts are in the folder.
fn page(rows: &[EpochRow], dir: &Path, change: impl FnOnce(&mut RunPage)) -> String {
    let timing = timing(rows.len() as u32);
    let mut page = RunPage {
        name: "a<b".into(),
        progress: RunStatus::Running,
        epochs: 40,
        about: vec![("started from", "runs/first & more".into())],
        config: "[model]\narch = \"<baseline>\"\n".into(),
        ..run(rows, &timing)
    };
    change(&mut page);
    fs::create_dir_all(dir.join("plots")).unwrap();
    page.write(dir).unwrap();
    let text = fs::read_to_string(dir.join("report.html")).unwrap();
    let charts = fs::read_dir(dir.join("plots")).unwrap();
    let charts = charts.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    for text in charts.chain([text.clone()]) {
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    text
}

fn chart(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join("plots").join(name)).unwrap();
    assert!(
        text.starts_with("<svg") && text.ends_with("</svg>\n"),
        "{name}"
    );
    text
}

#[test]
fn page_shows_epochs_best_epoch_and_provenance() {
    let dir = tempfile::tempdir().unwrap();
    let text = page(&rows(12), dir.path(), |page| {
        page.stages = vec![(1, "backbone frozen".into()), (5, "nothing frozen".into())];
    });
    for part in [
        "Training of a&lt;b",
        "12 of 40 epochs, running",
        "runs/first &amp; more",
        "&lt;baseline&gt;",
        "backbone frozen",
        "best: 7",
        "epoch 7, the best",
        "7 best",
        "2 min 30 s",
        "4 %",
        "Content-Security-Policy",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(text.matches("<svg").count(), 5);
    for (name, words) in [
        ("loss.svg", vec!["Loss", "epoch", "train", "validation"]),
        ("f1.svg", vec!["macro-F1", "worst class"]),
        ("learning_rate.svg", vec!["Learning rate", "2e-5"]),
        ("throughput.svg", vec!["images/s"]),
        ("data_wait.svg", vec!["% of the time"]),
    ] {
        let chart = chart(dir.path(), name);
        for word in words {
            assert!(chart.contains(&format!(">{word}</text>")), "{name}: {word}");
        }
        // Start of the second stage, and the best epoch.
        assert_eq!(chart.matches("class=\"mark\"").count(), 1, "{name}");
        assert_eq!(chart.matches("class=\"dashed\"").count(), 1, "{name}");
    }
    let loss = chart(dir.path(), "loss.svg");
    assert_eq!(loss.matches("<circle").count(), 24);
}

#[test]
fn page_shows_short_diverged_and_unvalidated_runs() {
    let mut diverged = rows(3);
    diverged[1].train_loss = f64::NAN;
    diverged[0].train_loss = 1e300;
    diverged[2].train_loss = f64::INFINITY;
    diverged[2].valid_loss = Some(f64::NAN);
    diverged[1].lr = 1e-310;
    let mut unvalidated = rows(4);
    for row in &mut unvalidated {
        row.valid_loss = None;
    }
    for rows in [vec![], rows(1), unvalidated] {
        let dir = tempfile::tempdir().unwrap();
        let text = page(&rows, dir.path(), |page| {
            page.progress = RunStatus::Failed("a <cause>".into());
        });
        assert!(text.contains("; failed: a &lt;cause&gt;"));
        let validated = rows.iter().any(|row| row.valid_loss.is_some());
        let loss = chart(dir.path(), "loss.svg");
        assert_eq!(loss.contains(">validation</text>"), validated);
        assert_eq!(
            text.contains("There is no validation loss"),
            rows.len() == 4
        );
        assert_eq!(loss.matches("<circle").count() > 0, !rows.is_empty());
    }
    // Values that are not finite appear in the table only.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("plots")).unwrap();
    let timing = timing(3);
    let page = RunPage {
        remarks: vec!["a remark".into()],
        ..run(&diverged, &timing)
    };
    page.write(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(text.contains("<td>NaN</td>") && text.contains("a remark"));
    let loss = chart(dir.path(), "loss.svg");
    assert!(!loss.contains("NaN") && !loss.contains("inf"), "{loss}");
}

#[test]
fn long_runs_are_fast_to_write_and_small() {
    let dir = tempfile::tempdir().unwrap();
    for count in [300, 5000] {
        let start = Instant::now();
        let text = page(&rows(count), dir.path(), |page| page.epochs = count);
        let took = start.elapsed();
        println!("{count} epochs: {took:?}, {} bytes", text.len());
        assert!(text.len() < 400_000, "{count}: {}", text.len());
        assert!(took.as_secs_f64() < 5.0, "{count}: {took:?}");
        assert_eq!(
            text.contains("metrics.csv and timing.csv contain all"),
            count > 500
        );
    }
}

#[test]
fn best_epoch_has_the_lowest_finite_validation_loss() {
    let mut some = rows(9);
    some[3].valid_loss = Some(f64::NAN);
    some[4].valid_loss = None;
    assert_eq!(best_epoch(&some).map(|row| row.epoch), Some(7));
    for row in &mut some {
        row.valid_loss = None;
    }
    assert_eq!(best_epoch(&some).map(|row| row.epoch), Some(9));
    assert_eq!(best_epoch(&[]), None);
}

#[test]
fn rows_round_trip_through_csv() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.csv");
    let mut some = rows(4);
    some[2].valid_loss = None;
    let mut writer = csv::Writer::from_path(&path).unwrap();
    for row in &some {
        writer.serialize(row).unwrap();
    }
    writer.flush().unwrap();
    assert_eq!(read_rows::<EpochRow>(&path).unwrap(), some);
    fs::write(&path, "Id,Target\na,1\n").unwrap();
    let error = read_rows::<EpochRow>(&path).unwrap_err().to_string();
    assert!(
        error.contains("metrics.csv") && error.contains("epoch"),
        "{error}"
    );
}

#[test]
fn missing_folder_is_named_in_the_error() {
    let (rows, timing) = (rows(1), timing(1));
    let page = run(&rows, &timing);
    let error = page.write(Path::new("/no/such/folder")).unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}
