//! `--log-mlflow` with the real MLflow, read back with its own client (`tests/clients`).

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{read, run, skipped};
use crate::tracking::{assert_posted, train_args};
use crate::train_support::workplace;

/// A running MLflow server; stopped when dropped.
struct MlflowProcess {
    child: Child,
    url: String,
}

impl MlflowProcess {
    /// Returns `None` if MLflow is not installed.
    fn start(dir: &Path) -> Option<Self> {
        let found = Command::new("python3")
            .args(["-c", "import mlflow.server"])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            skipped("no mlflow: `pip install mlflow`");
            return None;
        }
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let child = Command::new("python3")
            .args([
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--workers",
                "1",
            ])
            .args(["--port", &port.to_string()])
            .args(["--backend-store-uri", "sqlite:///mlflow.db"])
            .args(["--artifacts-destination", "artifacts"])
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Allows stopping its workers with it.
            .process_group(0)
            .spawn()
            .unwrap();
        let server = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let start = Instant::now();
        while server.query("--check").is_none() {
            assert!(
                start.elapsed() < Duration::from_mins(2),
                "MLflow does not start"
            );
            sleep(Duration::from_millis(500));
        }
        Some(server)
    }

    /// Returns the output of `tests/clients/mlflow_runs.py`.
    fn query(&self, args: &str) -> Option<Value> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/mlflow_runs.py");
        let mut command = Command::new("python3");
        let output = command
            .args([script, &self.url])
            .args(args.split_whitespace())
            .output();
        let output = output.unwrap();
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }
}

impl Drop for MlflowProcess {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["--", &group]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn real_mlflow_has_the_run() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let Some(server) = MlflowProcess::start(path) else {
        return;
    };
    let args = format!(
        "{} --mlflow-experiment my/plates",
        train_args(&server.url, 3)
    );
    for args in [args.clone(), format!("{args} --resume")] {
        let ended = run(path, &args);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("could not be posted"), "{ended:?}");
    }
    let runs = server.query("my/plates").unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    let run_on_server = &runs[0];
    assert_eq!(
        (&run_on_server["name"], &run_on_server["status"]),
        (&json!("first"), &json!("FINISHED"))
    );
    assert_eq!(run_on_server["params"]["train.epochs"], "3");
    let classes = run_on_server["params"]["model.classes"].as_str().unwrap();
    assert!(classes.contains("Rods & rings"), "{classes}");
    assert_eq!(run_on_server["tags"]["rgby.device"], "cpu");
    assert_posted(path, |name| {
        let points = run_on_server["metrics"][name].as_array().unwrap();
        points
            .iter()
            .map(|point| (point[0].as_u64().unwrap(), point[1].clone()))
            .collect()
    });
    let config = read(path, "runs/first/config.toml");
    assert_eq!(
        run_on_server["files"]["config.toml"].as_str(),
        Some(config.as_str())
    );
    assert!(
        run_on_server["files"]["report.html"]
            .as_str()
            .unwrap()
            .contains("Training of first")
    );
}
