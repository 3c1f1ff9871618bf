//! `rgby score` from and to object stores with faults.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use image::{GrayImage, Luma};
use rgby::imaging::CHANNELS;

use crate::s3_server::{BUCKET, Faults, SECRET};
use crate::store_support::{LOCAL, checked, client, plates, run_on};
use crate::support::{must, read, records, run, signal};

const REMOTE: &str = "score --model s3://plates/model.onnx --images s3://plates/p1/ \
                      --out s3://plates/results/out.csv --scores s3://plates/results/scores.csv";

#[test]
fn results_equal_those_from_disk_despite_faults() {
    let (dir, server) = plates(40);
    let path = dir.path();
    must(path, LOCAL);
    let ids = "Id,Predicted\nfield-007,\nfield-031,\nfield-002,\n";
    fs::write(path.join("ids.csv"), ids).unwrap();
    must(
        path,
        &format!("{LOCAL} --ids ids.csv").replace("local.csv", "some.csv"),
    );
    server.put(
        "plates/model.onnx",
        fs::read(path.join("model.onnx")).unwrap(),
    );
    server.put("plates/ids.csv", ids);
    // Neither a subfolder nor the folder's own marker object is an image.
    server.put("plates/p1/more/x_red.png", vec![1]);
    server.put("plates/p1/", Vec::new());
    {
        let mut state = server.lock();
        state.page = 13;
        state.faults = Faults {
            busy: 7,
            cut: 5,
            slow: 11,
            latency: 1,
        };
    }
    let remote = run_on(
        &server,
        path,
        &format!("{REMOTE} --json --read-ahead 1 --store-retries 12"),
    );
    assert_eq!(remote.code, Some(0), "{remote:?}");
    for part in ["s3://plates/results/out.csv", "s3://plates/model.onnx"] {
        assert!(remote.stdout.contains(part), "{remote:?}");
    }
    assert_eq!(
        server.text("plates/results/out.csv"),
        read(path, "local.csv")
    );
    assert_eq!(server.text("plates/results/scores.csv").lines().count(), 41);
    let args = REMOTE.replace("results/out", "results/some")
        + " --ids s3://plates/ids.csv --store-retries 12";
    let remote = run_on(&server, path, &args);
    assert_eq!(remote.code, Some(0), "{remote:?}");
    assert_eq!(
        server.text("plates/results/some.csv"),
        read(path, "some.csv")
    );
    assert!(
        server.count_requests(&format!("GET {BUCKET}"), 503) > 0,
        "no listing had a fault"
    );
    assert!(server.keys(".parts").is_empty(), "parts were left behind");
}

#[test]
fn folders_are_listed_in_pages_and_objects_read_once() {
    let (dir, server) = plates(25);
    server.lock().page = 30;
    let remote = run_on(
        &server,
        dir.path(),
        &REMOTE.replace("s3://plates/model", "model"),
    );
    assert_eq!(remote.code, Some(0), "{remote:?}");
    assert_eq!(
        server.count_requests("GET plates", 200),
        4 + 1,
        "pages of images, and of parts"
    );
    let images = server.keys("/p1/");
    assert_eq!(images.len(), 100);
    for key in images {
        let expected = format!("GET {key}");
        let state = server.lock();
        let requests = state.requests.iter().filter(|(r, _)| *r == expected);
        assert_eq!(requests.count(), 1, "{key}");
    }
}

#[test]
fn unreadable_objects_fail_only_their_samples() {
    let (dir, server) = plates(12);
    let noise =
        |x: u32, y: u32| Luma([(x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503 * x)) as u8]);
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = GrayImage::from_fn(3100, 3100, noise);
    image
        .write_to(&mut bytes, image::ImageFormat::Tiff)
        .unwrap();
    for channel in CHANNELS {
        for id in ["large", "moving"] {
            let key = format!("plates/p1/{id}_{channel}.tif");
            server.put(&key, bytes.get_ref().clone());
        }
    }
    server.put("plates/p1/field-006_red.png", "not an image");
    {
        let mut state = server.lock();
        state.changing.insert("plates/p1/moving_green.tif".into());
        state.vanishing.insert("plates/p1/field-003_red.png".into());
        for (key, status) in [("field-004_blue", 403), ("field-005_red", 500)] {
            state.status.insert(format!("plates/p1/{key}.png"), status);
        }
    }
    let args = REMOTE.replace("s3://plates/model", "model");
    let remote = run_on(&server, dir.path(), &args);
    assert_eq!(remote.code, Some(1), "{remote:?}");
    assert!(
        remote.stderr.contains("s3://plates/results/out.errors.csv"),
        "{remote:?}"
    );
    fs::write(
        dir.path().join("e.csv"),
        server.text("plates/results/out.errors.csv"),
    )
    .unwrap();
    let errors = records(dir.path(), "e.csv");
    let expected = [
        ("field-003", "field-003_red.png", "nothing there"),
        ("field-004", "field-004_blue.png", "denied"),
        ("field-005", "field-005_red.png", "500"),
        ("field-006", "field-006_red.png", "not an image"),
        ("moving", "moving_green.tif", "changed while it was read"),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, (id, file, reason)) in errors.iter().zip(expected) {
        assert_eq!(error[0], id, "{error:?}");
        assert_eq!(error[1], format!("s3://plates/p1/{file}"), "{error:?}");
        assert!(error[2].contains(reason), "{error:?}");
        assert!(!error[2].contains(SECRET), "{error:?}");
    }
    let out = server.text("plates/results/out.csv");
    assert_eq!(out.lines().count(), 15, "{out}");
    // A run without failures removes the list of an earlier run.
    server.lock().status.clear();
    let args = format!("{args} --ids ids.csv");
    fs::write(dir.path().join("ids.csv"), "Id\nfield-001\nfield-004\n").unwrap();
    assert_eq!(run_on(&server, dir.path(), &args).code, Some(0));
    assert!(!server.has("plates/results/out.errors.csv"));
}

#[test]
fn an_unreachable_store_stops_the_run() {
    let (dir, server) = plates(40);
    let path = dir.path();
    must(path, LOCAL);
    let args = REMOTE.replace("s3://plates/model", "model") + " --part-size 8 --decode-threads 2";
    // The store fails once a part is written to the local disk. The remaining samples would take
    // 250 ms.
    let half = args.replace("s3://plates/results", ".") + " --store-requests 4";
    server.lock().faults.latency = 8;
    let output = thread::scope(|scope| {
        let output = scope.spawn(|| run_on(&server, path, &half));
        let manifest = path.join("out.csv.parts/manifest.json");
        while !fs::read_to_string(&manifest).is_ok_and(|text| text.contains("\"first\"")) {
            assert!(!output.is_finished(), "{:?}", output.join());
            thread::sleep(Duration::from_millis(1));
        }
        let mut state = server.lock();
        state.dead = true;
        // Read-ahead did not delay the files of the first samples.
        let last = state
            .requests
            .iter()
            .rposition(|(name, _)| name.contains("p1/field-001"));
        assert!(last.unwrap() < 16, "{:?}", state.requests);
        drop(state);
        output.join().unwrap()
    });
    assert_eq!(output.code, Some(2), "{output:?}");
    for part in ["cannot be reached", "s3://plates/p1", "503", "--resume"] {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
    assert!(!path.join("out.csv").exists());
    {
        let mut state = server.lock();
        state.dead = false;
        state.faults.latency = 0;
    }
    let resumed = run_on(&server, path, &format!("{half} --resume"));
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(read(path, "out.csv"), read(path, "local.csv"));
    // Permission to list does not imply permission to read.
    let denied = server.keys("/p1/").into_iter().map(|key| (key, 403));
    server.lock().status.extend(denied);
    let denied = run_on(&server, path, &args);
    assert_eq!(denied.code, Some(2), "{denied:?}");
    assert!(denied.stderr.contains("access is denied"), "{denied:?}");
}

#[test]
fn unfinished_runs_resume_from_parts_in_the_store() {
    let (dir, server) = plates(30);
    let path = dir.path();
    for number in [11, 20] {
        let name = format!("field-{number:03}_red.png");
        fs::write(path.join("images").join(&name), "no image").unwrap();
        server.put(&format!("plates/p1/{name}"), "no image");
    }
    assert_eq!(run(path, LOCAL).code, Some(1));
    let args = REMOTE.replace("s3://plates/model", "model") + " --part-size 8";
    let ended = run_on(&server, path, &format!("{args} --max-errors 1"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("s3://plates/results/out.csv"),
        "{ended:?}"
    );
    let manifest = "plates/results/out.csv.parts/manifest.json";
    assert!(server.has(manifest));
    assert!(!server.has("plates/results/out.csv"));
    let refused = run_on(&server, path, &args);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("s3://plates/results/out.csv.parts: holds"),
        "{refused:?}"
    );
    // In another folder, as on another machine.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(path.join("model.onnx"), elsewhere.path().join("model.onnx")).unwrap();
    let before = server.lock().requests.len();
    let resumed = run_on(&server, elsewhere.path(), &format!("{args} --resume"));
    assert_eq!(resumed.code, Some(1), "{resumed:?}");
    assert!(resumed.stderr.contains("resuming after"), "{resumed:?}");
    let again = format!("GET {BUCKET}/p1/field-000_red.png");
    assert!(
        server.lock().requests[before..]
            .iter()
            .all(|(r, _)| *r != again)
    );
    assert_eq!(
        server.text("plates/results/out.csv"),
        read(path, "local.csv")
    );
    assert_eq!(
        server.text("plates/results/scores.csv"),
        read(path, "scores.csv")
    );
    assert!(server.keys(".parts").is_empty());
}

#[test]
fn concurrent_runs_with_the_same_output_are_detected() {
    let (dir, server) = plates(30);
    let manifest = "plates/results/out.csv.parts/manifest.json";
    server.lock().stolen.insert(manifest.into());
    let args = REMOTE.replace("s3://plates/model", "model") + " --part-size 8";
    let ended = run_on(&server, dir.path(), &args);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("another process scores the same samples"),
        "{ended:?}"
    );
    assert_eq!(
        server.text(manifest),
        "another's",
        "the manifest was overwritten"
    );
    assert!(!server.has("plates/results/out.csv"));
}

#[cfg(unix)]
#[test]
fn runs_in_the_store_resume_after_sigterm() {
    let (dir, server) = plates(60);
    let path = dir.path();
    must(path, LOCAL);
    server.lock().faults.latency = 30;
    let args = REMOTE.replace("s3://plates/model", "model") + " --store-requests 2 --part-size 8";
    let mut command = client(&server, path, &args);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let read_so_far = || {
        let state = server.lock();
        let reads = state.requests.iter().filter(|(r, _)| r.contains("_red"));
        reads.count()
    };
    while read_so_far() < 20 {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "no objects were read"
        );
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "TERM");
    let stopped = checked(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, Some(143), "{stopped:?}");
    assert!(
        stopped.stderr.contains("resume with --resume"),
        "{stopped:?}"
    );
    server.lock().faults.latency = 0;
    let resumed = run_on(&server, path, &format!("{args} --resume"));
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(
        server.text("plates/results/out.csv"),
        read(path, "local.csv")
    );
}
