//! `--log-mlflow` with a mock server that can fail; `tracking_mlflow` tests the real MLflow.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mlflow_server::{MlflowServer, ServerBehavior};
use crate::support::{Run, assert_refused, finish, read, records, rgby, run, signal, spawn};
use crate::train_support::{DATA, workplace};

const TOKEN: &str = "a-token-of-mine";
const SET: &str = "--set data.split=random:0.25 --set train.steps_per_epoch=2";

pub fn train_args(url: &str, epochs: u32) -> String {
    format!(
        "train --config baseline.toml {DATA} {SET} --set train.epochs={epochs} --out runs/first \
         --log-mlflow {url}"
    )
}

/// Trains with a token in the environment.
fn train(dir: &Path, args: &str) -> Run {
    let mut command = rgby();
    command.args(args.split_whitespace()).current_dir(dir);
    finish(command.env("MLFLOW_TRACKING_TOKEN", TOKEN))
}

/// Asserts that each number of the run's files is on the server exactly once.
pub fn assert_posted(dir: &Path, metrics: impl Fn(&str) -> Vec<(u64, Value)>) {
    let names = [
        ("metrics.csv", 1, "loss/train"),
        ("metrics.csv", 2, "loss/validation"),
        ("metrics.csv", 3, "f1/mean"),
        ("metrics.csv", 7, "learning_rate"),
        ("timing.csv", 2, "time/images_per_s"),
    ];
    for (file, column, name) in names {
        let rows = records(dir, &format!("runs/first/{file}"));
        let expected: Vec<(u64, f64)> = rows
            .iter()
            .map(|row| (row[0].parse().unwrap(), row[column].parse().unwrap()))
            .collect();
        let found: Vec<(u64, f64)> = metrics(name)
            .into_iter()
            .map(|(step, value)| (step, value.as_f64().unwrap()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

fn assert_on_server(server: &MlflowServer, dir: &Path, status: &str) {
    let state = server.lock();
    assert_eq!(state.runs.len(), 1, "{:?}", state.requests);
    assert_eq!(state.runs[0].status, status);
    assert_posted(dir, |name| state.runs[0].metrics[name].clone());
}

#[test]
fn server_has_the_data_of_the_run_files() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    server.lock().authorization = Some(format!("Bearer {TOKEN}"));
    // An old server, whose limit is too short for the names of 28 classes.
    server.lock().max_value_length = 500;
    let args = train_args(&server.url, 3);
    let ended = train(path, &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let link = format!("MLflow: {}/#/experiments/0/runs/run-0", server.url);
    assert!(ended.stderr.contains(&link), "{ended:?}");
    assert!(!ended.stderr.contains("could not be posted"), "{ended:?}");
    assert_on_server(&server, path, "FINISHED");
    {
        let state = server.lock();
        assert_eq!(state.experiments, ["rgby"]);
        let run = &state.runs[0];
        assert_eq!(run.name, "first");
        let param = |name: &str| run.params[name].as_str();
        assert_eq!(param("model.arch"), "baseline");
        assert_eq!(param("train.epochs"), "3");
        assert_eq!(param("data.split"), "random:0.25");
        assert_eq!(param("model.classes").len(), 500);
        assert_eq!(run.tags["rgby.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(run.tags["rgby.device"], "cpu");
        assert_eq!(run.tags["rgby.labels"], "data/labels.csv");
        assert_eq!(run.tags["rgby.data"].len(), 64);
        let config = fs::read(path.join("runs/first/config.toml")).unwrap();
        assert!(run.files["config.toml"] == config);
        let page = String::from_utf8(run.files["report.html"].clone()).unwrap();
        assert!(page.contains("3 of 3 epochs, finished"));
    }
    // Nothing is posted twice, and a deleted run is replaced by a new one.
    let resume = format!("{args} --resume");
    assert_eq!(train(path, &resume).code, Some(0));
    assert_on_server(&server, path, "FINISHED");
    server.lock().runs[0].deleted = true;
    assert_eq!(train(path, &resume).code, Some(0));
    let state = server.lock();
    assert_eq!(state.runs.len(), 2);
    assert_posted(path, |name| state.runs[1].metrics[name].clone());
    assert!(read(path, "runs/first/mlflow.json").contains("run-1"));
}

#[test]
fn warns_once_about_missing_data_and_posts_it_on_resume() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    server.lock().behavior = ServerBehavior::InternalError;
    let args = train_args(&server.url, 3);
    let ended = train(path, &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("training continues").count(), 1);
    for part in [
        "the server returned 500 Internal Server Error: no disk",
        "MLflow: 3 epochs could not be posted",
        "--resume to post the missing data",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
        assert!(read(path, "runs/first/log.txt").contains(part), "{part}");
    }
    assert!(server.lock().runs.is_empty());
    // The server works again after two more requests.
    server.lock().for_requests = Some(2);
    let resumed = train(path, &format!("{args} --resume --quiet"));
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(
        !resumed.stderr.contains("could not be posted"),
        "{resumed:?}"
    );
    assert_on_server(&server, path, "FINISHED");
}

#[test]
fn repeats_nothing_after_a_lost_response() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    // The first requests create the run; the others post its config, its epochs and its end.
    for number in 1..=8 {
        let _ = fs::remove_dir_all(path.join("runs"));
        {
            let mut state = server.lock();
            state.runs.clear();
            state.experiments.clear();
            state.requests.clear();
            state.unanswered_request = number;
        }
        let ended = train(path, &train_args(&server.url, 2));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("could not be posted"), "{ended:?}");
        assert_on_server(&server, path, "FINISHED");
    }
}

#[test]
fn unusable_server_does_not_stop_training_and_is_reported() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let other = "check that an MLflow server runs at this URL";
    for (behavior, url, expected) in [
        (
            ServerBehavior::Normal,
            closed.as_str(),
            "Connection refused",
        ),
        (ServerBehavior::NotMlflow, &server.url, other),
        (
            ServerBehavior::Redirect,
            &server.url,
            "it redirects to http://elsewhere/",
        ),
        (
            ServerBehavior::NoResponse,
            &server.url,
            "could not be posted",
        ),
    ] {
        let _ = fs::remove_dir_all(path.join("runs"));
        server.lock().behavior = behavior;
        let start = Instant::now();
        let ended = train(path, &train_args(url, 1));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
        assert_eq!(records(path, "runs/first/metrics.csv").len(), 1);
        // The end of the run waits for at most ten seconds.
        let took = start.elapsed();
        assert!(took < Duration::from_secs(25), "{behavior:?}: {took:?}");
    }
    let _ = fs::remove_dir_all(path.join("runs"));
    {
        let mut state = server.lock();
        state.behavior = ServerBehavior::Normal;
        state.authorization = Some("Bearer another".into());
    }
    let ended = train(path, &train_args(&server.url, 1));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("401"), "{ended:?}");
    assert!(
        ended.stderr.contains("set MLFLOW_TRACKING_TOKEN"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains(TOKEN), "{ended:?}");
    assert!(!read(path, "runs/first/log.txt").contains(TOKEN));
}

#[test]
fn rejects_an_invalid_server_before_training() {
    let dir = workplace(4, "0");
    let train = format!("train --config baseline.toml {DATA} --out run");
    assert_refused(
        dir.path(),
        &[
            (
                &format!("{train} --log-mlflow localhost:5000"),
                &[
                    "--log-mlflow",
                    "neither http nor https",
                    "http://127.0.0.1:5000",
                ],
            ),
            (
                &format!("{train} --log-mlflow ./mlruns"),
                &["--log-mlflow", "name the tracking server"],
            ),
            (
                &format!("{train} --mlflow-experiment mine"),
                &["--log-mlflow"],
            ),
        ],
    );
}

#[test]
fn invalid_setting_is_named() {
    let dir = workplace(24, "0");
    let path = dir.path();
    let mut command = rgby();
    command
        .args(train_args("http://127.0.0.1:9", 1).split_whitespace())
        .env("MLFLOW_TRACKING_SERVER_CERT_PATH", "missing.pem");
    let ended = finish(command.current_dir(path));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("MLFLOW_TRACKING_SERVER_CERT_PATH=missing.pem"),
        "{ended:?}"
    );
}

#[test]
#[cfg(unix)]
fn killed_run_resumes_as_the_same_run_and_reports_a_stop() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    let args = train_args(&server.url, 60);
    let posted = || {
        let state = server.lock();
        let run = state.runs.first();
        run.and_then(|run| run.metrics.get("loss/train"))
            .map_or(0, Vec::len)
    };
    let mut child = spawn(path, &args);
    while posted() < 2 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended too early"
        );
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(server.lock().runs[0].status, "RUNNING");
    let before = posted();
    let mut child = spawn(path, &format!("{args} --resume"));
    while posted() <= before {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended too early"
        );
        sleep(Duration::from_millis(2));
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_on_server(&server, path, "KILLED");
    assert_eq!(train(path, &format!("{args} --resume")).code, Some(0));
    assert_on_server(&server, path, "FINISHED");
}

#[test]
fn failed_run_has_the_status_failed() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let server = MlflowServer::start();
    let args = train_args(&server.url, 3);
    let ended = run(
        path,
        &format!("{args} --set optimizer.name=sgd --set optimizer.lr=1e30"),
    );
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("the loss became"), "{ended:?}");
    assert_eq!(server.lock().runs[0].status, "FAILED");
    let page = read(path, "runs/first/report.html");
    assert!(page.contains("failed: the loss became"));
}
