//! `rgby score` with valid and invalid URLs.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::s3_server::SECRET;
use crate::store_support::{LOCAL, plates, run_on};
use crate::support::{finish, must, read, rgby, write_sample};

#[test]
fn object_names_with_special_characters_are_read() {
    let (dir, server) = plates(0);
    let names = ["a b", "ü%41", "x+y&z=1", "#1?", "100%", "~t{}[]^"];
    let images = dir.path().join("images");
    for name in names {
        write_sample(&images, name, [200, 10, 90, 60]);
    }
    must(dir.path(), LOCAL);
    server.upload(&images, "plates/p%201 é+/");
    let mut command = rgby();
    command
        .args(["score", "--model", "model.onnx", "--out", "out.csv"])
        .args(["--images", "s3://plates/p%201 é+"])
        .env("AWS_SKIP_SIGNATURE", "true")
        .env("AWS_ENDPOINT_URL", format!("http://{}", server.address))
        .env("NO_PROXY", "127.0.0.1");
    let scored = finish(command.current_dir(dir.path()));
    assert_eq!(scored.code, Some(0), "{scored:?}");
    assert_eq!(read(dir.path(), "out.csv"), read(dir.path(), "local.csv"));
}

#[test]
fn unusable_urls_are_errors_with_hints() {
    let (dir, server) = plates(2);
    {
        let mut state = server.lock();
        state.status.insert("denied".into(), 403);
        state.status.insert("denied/model.onnx".into(), 403);
    }
    let images = |url: &str| format!("score --model model.onnx --images {url} --out out.csv");
    let out = |url: &str| format!("score --model model.onnx --images images --out {url}");
    let http = format!("http://user:{SECRET}@{}", server.address);
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            images("s3://denied/p1/"),
            vec!["--images", "s3://denied/p1", "denied", "AWS_ACCESS_KEY_ID"],
        ),
        (
            images("s3://gone/p1/"),
            vec!["s3://gone/p1", "NoSuchBucket"],
        ),
        (
            images("s3://plates/none/"),
            vec!["s3://plates/none/", "an empty folder"],
        ),
        (images("s3://"), vec!["--images", "names no bucket"]),
        (images("ftp://x/y"), vec!["--images", "s3://", "./ftp://"]),
        (images("s3://plates/a//b"), vec!["--images", "segment ``"]),
        (
            images(&format!("{http}/plates/p1/")),
            vec!["--images", "does not list"],
        ),
        (
            images(&format!("s3://key:{SECRET}@plates/p1")),
            vec!["s3://***@plates/p1", "environment"],
        ),
        (
            out(&format!("{http}/plates/out.csv")),
            vec!["--out", "web servers are read-only"],
        ),
        (out("s3://plates/results/"), vec!["--out", "is a folder"]),
        (out("s3://plates"), vec!["--out", "names no file"]),
        (
            out("s3://denied/model.onnx"),
            vec!["s3://denied/model.onnx", "denied", "AWS_"],
        ),
        (
            images("images").replace("model.onnx", "s3://plates/none.onnx"),
            vec!["--model", "s3://plates/none.onnx", "nothing there"],
        ),
        (
            images("images").replace("model.onnx", "s3://denied/model.onnx"),
            vec!["--model", "s3://denied/model.onnx", "access is denied"],
        ),
        (
            images("images").replace("model.onnx", "s3://plates/p1/field-000_red.png"),
            vec!["s3://plates/p1/field-000_red.png", "is not an ONNX model"],
        ),
        (
            images("http://127.0.0.1:1/x?sig=hunter22"),
            vec!["http://127.0.0.1:1/x", "cannot be reached", "refused"],
        ),
    ];
    for (args, expected) in cases {
        let run = run_on(&server, dir.path(), &args);
        assert_eq!(run.code, Some(2), "{args}: {run:?}");
        for part in expected {
            assert!(run.stderr.contains(part), "{args}: no {part} in {run:?}");
        }
        assert!(!run.stderr.contains("hunter22"), "{run:?}");
        assert!(!dir.path().join("out.csv").exists(), "{args}");
    }
    assert!(server.keys("out.csv").is_empty());
}

#[test]
fn web_servers_provide_models_and_id_lists() {
    let (dir, server) = plates(3);
    must(dir.path(), LOCAL);
    let model = fs::read(dir.path().join("model.onnx")).unwrap();
    server.put("plates/elsewhere.png", model);
    server.put("plates/my ids.csv", "Id\nfield-001\n");
    server.lock().status.insert("plates/moved.onnx".into(), 301);
    let http = format!("http://user:{SECRET}@{}/plates", server.address);
    let args = format!(
        "score --model {http}/moved.onnx?token={SECRET} --ids {http}/my%20ids.csv --images file://{} \
         --out file://{}/out.csv --json",
        dir.path().join("images").display(),
        dir.path().display(),
    );
    let done = run_on(&server, dir.path(), &args);
    assert_eq!(done.code, Some(0), "{done:?}");
    let expected = read(dir.path(), "local.csv");
    let expected: Vec<_> = expected
        .lines()
        .filter(|l| l.starts_with("Id") || l.contains("001"))
        .collect();
    assert_eq!(
        read(dir.path(), "out.csv").lines().collect::<Vec<_>>(),
        expected
    );
    let basic = BASE64_STANDARD.encode(format!("user:{SECRET}"));
    assert!(
        server
            .lock()
            .authorizations
            .contains(&format!("Basic {basic}"))
    );
    let model = format!("http://{}/plates/moved.onnx", server.address);
    assert!(done.stdout.contains(&model), "{done:?}");
}

#[test]
fn paths_that_resemble_urls_are_paths() {
    let (dir, _server) = plates(2);
    fs::create_dir(dir.path().join("s3:")).unwrap();
    fs::rename(dir.path().join("images"), dir.path().join("s3:/images")).unwrap();
    for path in ["./s3://images", "s3:/images"] {
        must(
            dir.path(),
            &format!("score --model model.onnx --images {path} --out {path}.csv"),
        );
    }
}
