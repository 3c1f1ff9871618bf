//! Helpers that run `rgby score` as a client of [`s3_server`](crate::s3_server).

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::s3_server::{S3Server, SECRET};
use crate::support::{Run, rgby, workplace, write_sample};

/// Runs the program as a client of the server and waits for its end.
pub fn run_on(server: &S3Server, dir: &Path, args: &str) -> Run {
    checked(client(server, dir, args).output().unwrap())
}

/// Returns the program with the environment of a client of the server.
pub fn client(server: &S3Server, dir: &Path, args: &str) -> Command {
    let mut command = rgby();
    command.args(args.split_whitespace());
    if !args.contains("--store-retries") {
        command.args(["--store-retries", "4"]);
    }
    command
        .args(["--store-timeout", "2"])
        .current_dir(dir)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", format!("http://{}", server.address))
        .env("NO_PROXY", "127.0.0.1");
    command
}

/// Returns the output of a run and asserts that it has neither the secret nor temporary file names.
pub fn checked(output: Output) -> Run {
    let run = Run::from(output);
    let text = format!("{}{}", run.stdout, run.stderr);
    assert!(!text.contains(SECRET), "the output has the secret: {run:?}");
    let temporary = std::env::temp_dir().join("rgby-").display().to_string();
    assert!(
        !text.contains(&temporary),
        "the output has a temporary name: {run:?}"
    );
    run
}

/// Creates a folder with a model and `count` samples, and a store with the same samples.
pub fn plates(count: u8) -> (TempDir, S3Server) {
    let dir = workplace();
    let images = dir.path().join("images");
    for number in 0..count {
        let grays = [number * 3, 250 - number * 2, number, 100 + number];
        write_sample(&images, &format!("field-{number:03}"), grays);
    }
    let server = S3Server::start();
    server.upload(&images, "plates/p1/");
    (dir, server)
}

/// Scores the samples of [`plates`] from disk to disk.
pub const LOCAL: &str =
    "score --model model.onnx --images images --out local.csv --scores scores.csv";
