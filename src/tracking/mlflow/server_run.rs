//! A run on an MLflow server: finds or creates it, and posts its data.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{TrackedRun, TrackingStatus};
use super::client::{MlflowClient, MlflowError};
use super::parameters::parameters;
use crate::atomic_file;
use crate::report::{EpochRow, TimingRow, scalars};

/// Maximum number of parameters in a request: the server's limit.
const MAX_PARAMETERS: usize = 100;
/// Maximum length of a parameter's value: the server's limit, and the limit of older servers.
const MAX_VALUE_LENGTHS: [usize; 2] = [6000, 500];
/// Maximum number of epochs in a request. Each has about 10 metrics; the server's limit is 1000.
const MAX_EPOCHS: usize = 100;
/// Metric that every epoch has; its last step on the server is the last posted epoch.
const LAST_EPOCH_METRIC: &str = "loss/train";
/// Files of a run that are uploaded if the server accepts files.
const FILES: [&str; 6] = [
    "config.toml",
    "run.json",
    "metrics.csv",
    "timing.csv",
    "log.txt",
    "report.html",
];
const ARTIFACTS: &str = "mlflow-artifacts:/";
/// File in the run directory that stores the run's id.
const RUN_ID_FILE: &str = "mlflow.json";

/// A run that exists on the server.
pub(super) struct ServerRun {
    pub experiment_id: String,
    pub run_id: String,
    /// Last epoch on the server.
    pub posted: u32,
    artifact_uri: String,
}

/// `RUN/mlflow.json`: identifies the run on a server.
#[derive(Debug, Serialize, Deserialize)]
struct RunIdFile {
    server: String,
    experiment: String,
    /// Random tag of the run. It finds a run that was created although the response came too late.
    key: String,
    run_id: Option<String>,
}

impl RunIdFile {
    /// Reads the file, or creates it if it is missing or belongs to another server or experiment.
    fn open(run: &TrackedRun, server: &str) -> Result<Self, MlflowError> {
        let path = run.folder.join(RUN_ID_FILE);
        let fail = |error: &dyn std::fmt::Display| {
            let path = path.display();
            MlflowError::new(format!(
                "{path}: {error}; remove the file to create a new run"
            ))
        };
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|error| fail(&error))?;
            let file: Self = serde_json::from_str(&text).map_err(|error| fail(&error))?;
            if file.server == server && file.experiment == run.experiment {
                return Ok(file);
            }
        }
        let file = Self::new(run, server);
        file.write(&run.folder)?;
        Ok(file)
    }

    fn new(run: &TrackedRun, server: &str) -> Self {
        // The seeds of hash maps come from the system's random generator.
        let random = [(); 2].map(|()| RandomState::new().build_hasher().finish());
        Self {
            server: server.to_owned(),
            experiment: run.experiment.clone(),
            key: random.map(|half| format!("{half:016x}")).concat(),
            run_id: None,
        }
    }

    fn write(&self, folder: &Path) -> Result<(), MlflowError> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| MlflowError::new(e.to_string()))?;
        let written =
            atomic_file::write_atomic(&folder.join(RUN_ID_FILE), format!("{text}\n").as_bytes());
        written.map_err(|error| MlflowError::new(error.to_string()))
    }
}

impl ServerRun {
    /// Finds the run on the server or creates it, and posts its parameters and tags.
    pub(super) fn open(
        client: &MlflowClient,
        server: &str,
        run: &TrackedRun,
    ) -> Result<Self, MlflowError> {
        let experiment_id = experiment(client, &run.experiment)?;
        let mut id_file = RunIdFile::open(run, server)?;
        let mut info = Value::Null;
        if let Some(run_id) = &id_file.run_id {
            info = match client.get("runs/get", &[("run_id", run_id)]) {
                Ok(response) => response["run"].clone(),
                Err(error) if error.code == "RESOURCE_DOES_NOT_EXIST" => Value::Null,
                Err(error) => return Err(error),
            };
            if info["info"]["lifecycle_stage"] != "active" {
                // The run was deleted on the server.
                id_file = RunIdFile::new(run, server);
                info = Value::Null;
            }
        }
        if info.is_null() {
            info = find_or_create(client, &experiment_id, &id_file.key, run)?;
            id_file.run_id = Some(checked_id(&info["info"]["run_id"], "run_id")?);
            id_file.write(&run.folder)?;
        }
        let server_run = Self {
            experiment_id,
            run_id: checked_id(&info["info"]["run_id"], "run_id")?,
            posted: last_epoch(&info),
            artifact_uri: info["info"]["artifact_uri"]
                .as_str()
                .unwrap_or_default()
                .into(),
        };
        if info["info"]["status"] != "RUNNING" {
            let body = json!({"run_id": server_run.run_id, "status": "RUNNING"});
            client.post("runs/update", &body)?;
        }
        server_run.post_metadata(client, run)?;
        Ok(server_run)
    }

    /// Posts parameters and tags. Posting equal values again is not an error.
    fn post_metadata(&self, client: &MlflowClient, run: &TrackedRun) -> Result<(), MlflowError> {
        let path = run.folder.join("config.toml");
        let text = fs::read_to_string(&path).map_err(|error| error.to_string());
        let params = text.and_then(|text| parameters(&text));
        let params = params.map_err(|e| MlflowError::new(format!("{}: {e}", path.display())))?;
        let tags: Vec<Value> = run
            .tags
            .iter()
            .map(|(key, value)| json!({"key": key, "value": cut(value, MAX_VALUE_LENGTHS[0])}))
            .collect();
        client.post(
            "runs/log-batch",
            &json!({"run_id": self.run_id, "tags": tags}),
        )?;
        for pairs in params.chunks(MAX_PARAMETERS) {
            let post = |max_length: usize| {
                let params: Vec<Value> = pairs
                    .iter()
                    .map(|(key, value)| json!({"key": key, "value": cut(value, max_length)}))
                    .collect();
                let body = json!({"run_id": self.run_id, "params": params});
                client.post("runs/log-batch", &body)
            };
            let long = pairs
                .iter()
                .any(|(_, value)| value.len() > MAX_VALUE_LENGTHS[1]);
            match post(MAX_VALUE_LENGTHS[0]) {
                Err(error) if long && error.code == "INVALID_PARAMETER_VALUE" => {
                    post(MAX_VALUE_LENGTHS[1])?
                }
                response => response?,
            };
        }
        Ok(())
    }

    /// Posts the epochs up to `done` that are missing on the server.
    pub(super) fn post(
        &mut self,
        client: &MlflowClient,
        rows: &[(EpochRow, TimingRow)],
        done: u32,
    ) -> Result<(), MlflowError> {
        let is_missing =
            |row: &&(EpochRow, TimingRow)| row.0.epoch > self.posted && row.0.epoch <= done;
        let missing: Vec<_> = rows.iter().filter(is_missing).collect();
        for rows in missing.chunks(MAX_EPOCHS) {
            let now = now();
            let metrics: Vec<Value> = rows
                .iter()
                .flat_map(|(row, timing)| {
                    scalars(row, timing).map(move |(key, value)| {
                        let value = number(value);
                        json!({"key": key, "value": value, "timestamp": now, "step": row.epoch})
                    })
                })
                .collect();
            let body = json!({"run_id": self.run_id, "metrics": metrics});
            client.post("runs/log-batch", &body)?;
            self.posted = rows.last().map_or(self.posted, |(row, _)| row.epoch);
        }
        if self.posted < done {
            return Err(MlflowError::new(format!(
                "metrics.csv or timing.csv does not contain epoch {done}"
            )));
        }
        Ok(())
    }

    /// Posts the status and the end time.
    pub(super) fn end(
        &self,
        client: &MlflowClient,
        status: TrackingStatus,
    ) -> Result<(), MlflowError> {
        let body = json!({
            "run_id": self.run_id, "status": name_of(status), "end_time": now(),
        });
        client.post("runs/update", &body).map(|_| ())
    }

    /// Uploads the run's small files if the server accepts files; otherwise returns why it does
    /// not.
    pub(super) fn upload(
        &self,
        client: &MlflowClient,
        folder: &Path,
    ) -> Result<Option<String>, MlflowError> {
        let path = self.artifact_uri.strip_prefix(ARTIFACTS);
        let Some(path) = path.filter(|path| !path.starts_with('/')) else {
            return Ok(Some(format!(
                "the run's files were not uploaded, because the server stores artifacts outside \
                 itself, at {:?}",
                cut(&self.artifact_uri, 100)
            )));
        };
        for name in FILES {
            // Some runs do not have all files.
            if let Ok(bytes) = fs::read(folder.join(name)) {
                client.put(&format!("{path}/{name}"), bytes)?;
            }
        }
        Ok(None)
    }
}

/// Returns the experiment's id; creates the experiment if it does not exist.
fn experiment(client: &MlflowClient, name: &str) -> Result<String, MlflowError> {
    let find = || client.get("experiments/get-by-name", &[("experiment_name", name)]);
    let response = match find() {
        Err(error) if error.code == "RESOURCE_DOES_NOT_EXIST" => {
            match client.post("experiments/create", &json!({"name": name})) {
                Ok(response) => return checked_id(&response["experiment_id"], "experiment_id"),
                // Another process created it meanwhile.
                Err(error) if error.code == "RESOURCE_ALREADY_EXISTS" => find()?,
                Err(error) => return Err(error),
            }
        }
        response => response?,
    };
    let experiment = &response["experiment"];
    if experiment["lifecycle_stage"] == "deleted" {
        return Err(MlflowError::new(format!(
            "the experiment `{name}` is deleted; restore it, or choose another with \
             --mlflow-experiment"
        )));
    }
    checked_id(&experiment["experiment_id"], "experiment_id")
}

/// Returns the run with the tag `key`; creates it if it does not exist.
fn find_or_create(
    client: &MlflowClient,
    experiment_id: &str,
    key: &str,
    run: &TrackedRun,
) -> Result<Value, MlflowError> {
    let search = json!({
        "experiment_ids": [experiment_id],
        "filter": format!("tags.`rgby.run` = '{key}'"),
        "max_results": 1,
    });
    let mut found = client.post("runs/search", &search)?;
    if let Some(run) = found.pointer_mut("/runs/0") {
        return Ok(run.take());
    }
    let create = json!({
        "experiment_id": experiment_id,
        "run_name": run.name,
        "start_time": now(),
        "tags": [{"key": "rgby.run", "value": key}],
    });
    let mut created = client.post("runs/create", &create)?;
    Ok(created
        .pointer_mut("/run")
        .map(Value::take)
        .unwrap_or_default())
}

/// Returns MLflow's name of a status.
fn name_of(status: TrackingStatus) -> &'static str {
    match status {
        TrackingStatus::Finished => "FINISHED",
        TrackingStatus::Failed => "FAILED",
        TrackingStatus::Killed => "KILLED",
    }
}

/// Returns the last epoch of a run on the server, 0 if there is none.
fn last_epoch(run: &Value) -> u32 {
    let metrics = run["data"]["metrics"].as_array().into_iter().flatten();
    let mut steps = metrics
        .filter(|metric| metric["key"] == LAST_EPOCH_METRIC)
        // 64-bit integers are strings in Protobuf's JSON, and numbers in MLflow's.
        .map(|metric| &metric["step"])
        .filter_map(|step| step.as_u64().or_else(|| step.as_str()?.parse().ok()));
    steps.next().unwrap_or(0) as u32
}

/// Returns an id of a response. It is untrusted and printed, so only plain characters are accepted.
fn checked_id(value: &Value, name: &str) -> Result<String, MlflowError> {
    let text = value.as_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(MlflowError::new(format!(
            "the response has no valid `{name}`; check that an MLflow server runs at this URL"
        )));
    }
    Ok(text.to_owned())
}

/// Converts a number to Protobuf's JSON, which also represents NaN and infinities.
fn number(value: f64) -> Value {
    if value.is_nan() {
        return "NaN".into();
    }
    match value {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => json!(value),
    }
}

/// Cuts `text` to at most `max_bytes` bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Returns the milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
