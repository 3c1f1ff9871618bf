//! `rgby score` as a client of [`s3_server`](crate::s3_server), and a plate here and there.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::s3_server::{SECRET, Server};
use crate::support::{Run, rgby, workplace, write_sample};

/// Runs the program as a client of the server.
pub fn run_on(server: &Server, dir: &Path, args: &str) -> Run {
    checked(client(server, dir, args).output().unwrap())
}

/// The program with the environment of a client of the server.
pub fn client(server: &Server, dir: &Path, args: &str) -> Command {
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

/// What a run said, which must hold nothing that is for nobody.
pub fn checked(output: Output) -> Run {
    let run = Run::from(output);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(!said.contains(SECRET), "a secret was shown: {run:?}");
    let temporary = std::env::temp_dir().join("rgby-").display().to_string();
    assert!(
        !said.contains(&temporary),
        "a local name was shown: {run:?}"
    );
    run
}

/// `count` samples and a model, here and in the store.
pub fn plates(count: u8) -> (TempDir, Server) {
    let dir = workplace();
    let images = dir.path().join("images");
    for number in 0..count {
        let grays = [number * 3, 250 - number * 2, number, 100 + number];
        write_sample(&images, &format!("field-{number:03}"), grays);
    }
    let server = Server::start();
    server.upload(&images, "plates/p1/");
    (dir, server)
}

/// Scores the samples of [`plates`] from the disk to the disk.
pub const LOCAL: &str =
    "score --model model.onnx --images images --out local.csv --scores scores.csv";
