//! A run on a server: found or made, and what is posted to it.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{Status, TrackedRun};
use super::client::{MlflowClient, MlflowFault};
use super::parameters::parameters;
use crate::atomic_file;
use crate::report::{EpochRow, TimingRow, scalars};

/// Parameters of a request, at most: the server's limit.
const BATCH: usize = 100;
/// Characters of a parameter's value: the server's limit, and that of older servers.
const LENGTHS: [usize; 2] = [6000, 500];
/// Epochs of a request: a tenth as many as the server takes numbers.
const EPOCHS: usize = 100;
/// The number that every epoch has, by which the server knows how far it is.
const EVERY_EPOCH: &str = "loss/train";
/// Files of a run that go with it, where the server takes files.
const FILES: [&str; 6] = [
    "config.toml",
    "run.json",
    "metrics.csv",
    "timing.csv",
    "log.txt",
    "report.html",
];
const ARTIFACTS: &str = "mlflow-artifacts:/";
/// What keeps the run's id in its folder.
const KEPT: &str = "mlflow.json";

/// A run that the server knows.
pub(super) struct Session {
    pub experiment_id: String,
    pub run_id: String,
    /// The last epoch that the server has.
    pub posted: u32,
    artifacts: String,
}

/// `RUN/mlflow.json`: which run of which server this is.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    server: String,
    experiment: String,
    /// A tag of the run, chosen here. A request that was answered too late has made the run all the
    /// same: by this it is found.
    key: String,
    run_id: Option<String>,
}

impl Kept {
    /// What the folder keeps, unless it is of another server or experiment.
    fn of(run: &TrackedRun, server: &str) -> Result<Self, MlflowFault> {
        let path = run.folder.join(KEPT);
        let fail = |error: &dyn std::fmt::Display| {
            let path = path.display();
            MlflowFault::new(format!("{path}: {error}; remove it to begin a new run"))
        };
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|error| fail(&error))?;
            let kept: Self = serde_json::from_str(&text).map_err(|error| fail(&error))?;
            if kept.server == server && kept.experiment == run.experiment {
                return Ok(kept);
            }
        }
        let kept = Self::new(run, server);
        kept.write(&run.folder)?;
        Ok(kept)
    }

    fn new(run: &TrackedRun, server: &str) -> Self {
        // The system's randomness, by way of what seeds hash maps.
        let random = [(); 2].map(|()| RandomState::new().build_hasher().finish());
        Self {
            server: server.to_owned(),
            experiment: run.experiment.clone(),
            key: random.map(|half| format!("{half:016x}")).concat(),
            run_id: None,
        }
    }

    fn write(&self, folder: &Path) -> Result<(), MlflowFault> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| MlflowFault::new(e.to_string()))?;
        let written = atomic_file::write_atomic(&folder.join(KEPT), format!("{text}\n").as_bytes());
        written.map_err(|error| MlflowFault::new(error.to_string()))
    }
}

impl Session {
    /// Finds the run on the server or makes it there, and says what it is.
    pub(super) fn open(
        client: &MlflowClient,
        server: &str,
        run: &TrackedRun,
    ) -> Result<Self, MlflowFault> {
        let experiment_id = experiment(client, &run.experiment)?;
        let mut kept = Kept::of(run, server)?;
        let mut info = Value::Null;
        if let Some(run_id) = &kept.run_id {
            info = match client.get("runs/get", &[("run_id", run_id)]) {
                Ok(answer) => answer["run"].clone(),
                Err(fault) if fault.code == "RESOURCE_DOES_NOT_EXIST" => Value::Null,
                Err(fault) => return Err(fault),
            };
            if info["info"]["lifecycle_stage"] != "active" {
                // Somebody deleted it.
                kept = Kept::new(run, server);
                info = Value::Null;
            }
        }
        if info.is_null() {
            info = find_or_make(client, &experiment_id, &kept.key, run)?;
            kept.run_id = Some(word(&info["info"]["run_id"], "run_id")?);
            kept.write(&run.folder)?;
        }
        let session = Self {
            experiment_id,
            run_id: word(&info["info"]["run_id"], "run_id")?,
            posted: posted(&info),
            artifacts: info["info"]["artifact_uri"]
                .as_str()
                .unwrap_or_default()
                .into(),
        };
        if info["info"]["status"] != "RUNNING" {
            let body = json!({"run_id": session.run_id, "status": "RUNNING"});
            client.post("runs/update", &body)?;
        }
        session.describe(client, run)?;
        Ok(session)
    }

    /// Posts parameters and tags. The same ones again are no error.
    fn describe(&self, client: &MlflowClient, run: &TrackedRun) -> Result<(), MlflowFault> {
        let path = run.folder.join("config.toml");
        let text = fs::read_to_string(&path).map_err(|error| error.to_string());
        let found = text.and_then(|text| parameters(&text));
        let found = found.map_err(|e| MlflowFault::new(format!("{}: {e}", path.display())))?;
        let tags: Vec<Value> = run
            .tags
            .iter()
            .map(|(key, value)| json!({"key": key, "value": cut(value, LENGTHS[0])}))
            .collect();
        client.post(
            "runs/log-batch",
            &json!({"run_id": self.run_id, "tags": tags}),
        )?;
        for pairs in found.chunks(BATCH) {
            let post = |most: usize| {
                let params: Vec<Value> = pairs
                    .iter()
                    .map(|(key, value)| json!({"key": key, "value": cut(value, most)}))
                    .collect();
                let body = json!({"run_id": self.run_id, "params": params});
                client.post("runs/log-batch", &body)
            };
            let long = pairs.iter().any(|(_, value)| value.len() > LENGTHS[1]);
            match post(LENGTHS[0]) {
                Err(fault) if long && fault.code == "INVALID_PARAMETER_VALUE" => post(LENGTHS[1])?,
                answer => answer?,
            };
        }
        Ok(())
    }

    /// Posts the epochs up to `done` that the server lacks.
    pub(super) fn post(
        &mut self,
        client: &MlflowClient,
        rows: &[(EpochRow, TimingRow)],
        done: u32,
    ) -> Result<(), MlflowFault> {
        let wanted =
            |row: &&(EpochRow, TimingRow)| row.0.epoch > self.posted && row.0.epoch <= done;
        let wanted: Vec<_> = rows.iter().filter(wanted).collect();
        for rows in wanted.chunks(EPOCHS) {
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
            return Err(MlflowFault::new(format!(
                "metrics.csv and timing.csv lack epoch {done}"
            )));
        }
        Ok(())
    }

    /// Says how the run ended.
    pub(super) fn end(&self, client: &MlflowClient, status: Status) -> Result<(), MlflowFault> {
        let body = json!({
            "run_id": self.run_id, "status": name_of(status), "end_time": now(),
        });
        client.post("runs/update", &body).map(|_| ())
    }

    /// Uploads the run's small files, where the server itself takes files; else says why not.
    pub(super) fn upload(
        &self,
        client: &MlflowClient,
        folder: &Path,
    ) -> Result<Option<String>, MlflowFault> {
        let place = self.artifacts.strip_prefix(ARTIFACTS);
        let Some(place) = place.filter(|place| !place.starts_with('/')) else {
            return Ok(Some(format!(
                "the run's files were not uploaded, since they would go to {:?}, past the server",
                cut(&self.artifacts, 100)
            )));
        };
        for name in FILES {
            // Not every run has each of them.
            if let Ok(bytes) = fs::read(folder.join(name)) {
                client.put(&format!("{place}/{name}"), bytes)?;
            }
        }
        Ok(None)
    }
}

/// The experiment's id; it is made if there is none.
fn experiment(client: &MlflowClient, name: &str) -> Result<String, MlflowFault> {
    let find = || client.get("experiments/get-by-name", &[("experiment_name", name)]);
    let answer = match find() {
        Err(fault) if fault.code == "RESOURCE_DOES_NOT_EXIST" => {
            match client.post("experiments/create", &json!({"name": name})) {
                Ok(answer) => return word(&answer["experiment_id"], "experiment_id"),
                // Another run was faster.
                Err(fault) if fault.code == "RESOURCE_ALREADY_EXISTS" => find()?,
                Err(fault) => return Err(fault),
            }
        }
        answer => answer?,
    };
    let experiment = &answer["experiment"];
    if experiment["lifecycle_stage"] == "deleted" {
        return Err(MlflowFault::new(format!(
            "the experiment `{name}` is deleted; restore it, or choose another with \
             --mlflow-experiment"
        )));
    }
    word(&experiment["experiment_id"], "experiment_id")
}

/// The run with the tag `key`, made if there is none.
fn find_or_make(
    client: &MlflowClient,
    experiment_id: &str,
    key: &str,
    run: &TrackedRun,
) -> Result<Value, MlflowFault> {
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
    let mut made = client.post("runs/create", &create)?;
    Ok(made
        .pointer_mut("/run")
        .map(Value::take)
        .unwrap_or_default())
}

/// A status as MLflow calls it.
fn name_of(status: Status) -> &'static str {
    match status {
        Status::Finished => "FINISHED",
        Status::Failed => "FAILED",
        Status::Killed => "KILLED",
    }
}

/// The last epoch of a run that the server has.
fn posted(run: &Value) -> u32 {
    let metrics = run["data"]["metrics"].as_array().into_iter().flatten();
    let mut steps = metrics
        .filter(|metric| metric["key"] == EVERY_EPOCH)
        // Whole numbers of 64 bits are text in Protobuf's JSON, and numbers in MLflow's.
        .map(|metric| &metric["step"])
        .filter_map(|step| step.as_u64().or_else(|| step.as_str()?.parse().ok()));
    steps.next().unwrap_or(0) as u32
}

/// An id in an answer. It comes from elsewhere and is printed, so it is looked at.
fn word(value: &Value, name: &str) -> Result<String, MlflowFault> {
    let text = value.as_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(MlflowFault::new(format!(
            "its answer has no `{name}`; is there an MLflow server at this URL?"
        )));
    }
    Ok(text.to_owned())
}

/// A number as Protobuf's JSON has it, which knows those that JSON does not.
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

/// The text, cut to `most` bytes at most.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
