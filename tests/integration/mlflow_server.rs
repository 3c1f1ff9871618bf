//! A mock MLflow tracking server that fails on purpose.
//!
//! It implements the endpoints that rgby uses and rejects what MLflow rejects: changed parameters,
//! too many parameters, and unknown runs.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http_request::HttpRequest;

/// How the server responds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerBehavior {
    #[default]
    Normal,
    /// Responds to every request with status 500.
    InternalError,
    /// Sends no response.
    NoResponse,
    /// Responds like a server other than MLflow.
    NotMlflow,
    /// Redirects to another server.
    Redirect,
}

#[derive(Debug, Default)]
pub struct PostedRun {
    pub name: String,
    pub status: String,
    pub deleted: bool,
    pub tags: BTreeMap<String, String>,
    pub params: BTreeMap<String, String>,
    /// Posted metrics by name: step and value.
    pub metrics: BTreeMap<String, Vec<(u64, Value)>>,
    /// Uploaded files by path.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct MlflowServerState {
    pub behavior: ServerBehavior,
    /// Number of requests with this behavior, then normal; `None` for all requests.
    pub for_requests: Option<usize>,
    pub experiments: Vec<String>,
    /// The ids are `run-0`, `run-1`, …
    pub runs: Vec<PostedRun>,
    pub requests: Vec<String>,
    /// Number of the request, from 1, that is executed without a response.
    pub unanswered_request: usize,
    /// Required value of the `Authorization` header.
    pub authorization: Option<String>,
    /// Maximum length of a parameter's value.
    pub max_value_length: usize,
}

pub struct MlflowServer {
    pub state: Arc<Mutex<MlflowServerState>>,
    pub url: String,
}

impl MlflowServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(MlflowServerState {
            max_value_length: 6000,
            ..MlflowServerState::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || while respond(&stream, &state).is_some() {});
            }
        });
        Self { state, url }
    }

    pub fn lock(&self) -> MutexGuard<'_, MlflowServerState> {
        self.state.lock().unwrap()
    }
}

/// Responds to a request; `None` closes the connection.
fn respond(mut stream: &TcpStream, state: &Mutex<MlflowServerState>) -> Option<()> {
    let request = HttpRequest::read(&mut BufReader::new(stream))?;
    let authorization = request.headers.get("authorization");
    let (method, target) = (&*request.method, &*request.target);
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{method} {target}"));
    let (behavior, unanswered) = (
        state.behavior,
        state.requests.len() == state.unanswered_request,
    );
    if let Some(left) = &mut state.for_requests {
        *left -= 1;
        if *left == 0 {
            state.for_requests = None;
            state.behavior = ServerBehavior::Normal;
        }
    }
    if behavior == ServerBehavior::NoResponse {
        drop(state);
        thread::sleep(Duration::from_mins(1));
        return None;
    }
    let (status, body) = match behavior {
        ServerBehavior::InternalError => (
            500,
            json!({"error_code": "INTERNAL_ERROR", "message": "no\ndisk"}),
        ),
        ServerBehavior::NotMlflow => (404, Value::Null),
        ServerBehavior::Redirect => (302, Value::Null),
        _ if state.authorization.is_some() && state.authorization.as_ref() != authorization => {
            // Some servers repeat the credentials.
            let message = format!("wrong: {}", authorization.map_or("", String::as_str));
            (
                401,
                json!({"error_code": "UNAUTHENTICATED", "message": message}),
            )
        }
        _ => match state.act(method, target, &request.body) {
            Ok(body) => (200, body),
            Err(code) if code.ends_with("NOT_EXIST") => (404, json!({"error_code": code})),
            Err(code) => (400, json!({"error_code": code, "message": "invalid"})),
        },
    };
    drop(state);
    if unanswered {
        return None;
    }
    let text = if body.is_null() {
        "<html>".into()
    } else {
        body.to_string()
    };
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nlocation: http://elsewhere/\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).ok()
}

type ApiResult = Result<Value, &'static str>;

impl MlflowServerState {
    fn act(&mut self, method: &str, target: &str, body: &[u8]) -> ApiResult {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some(path) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/0/") {
            let (run, file) = path.split_once("/artifacts/").unwrap();
            self.run(run)?.files.insert(file.into(), body.to_vec());
            return Ok(json!({}));
        }
        let path = path.strip_prefix("/api/2.0/mlflow/").ok_or("NOT_FOUND")?;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, path) {
            ("GET", "experiments/get-by-name") => {
                let name = query.strip_prefix("experiment_name=").unwrap();
                let at = self.experiments.iter().position(|known| known == name);
                let at = at.ok_or("RESOURCE_DOES_NOT_EXIST")?;
                Ok(json!({"experiment": {
                    "experiment_id": at.to_string(), "lifecycle_stage": "active",
                }}))
            }
            ("POST", "experiments/create") => {
                self.experiments.push(text(&body["name"]));
                Ok(json!({"experiment_id": (self.experiments.len() - 1).to_string()}))
            }
            ("POST", "runs/search") => {
                let filter = text(&body["filter"]);
                let key = filter.split('\'').nth(1).unwrap();
                let tagged =
                    |run: &PostedRun| run.tags.get("rgby.run").is_some_and(|tag| tag == key);
                let found = self.runs.iter().position(tagged);
                Ok(found.map_or(json!({}), |at| json!({"runs": [self.run_info(at)]})))
            }
            ("POST", "runs/create") => {
                self.runs.push(PostedRun {
                    name: text(&body["run_name"]),
                    status: "RUNNING".into(),
                    tags: pairs(&body["tags"]),
                    ..PostedRun::default()
                });
                Ok(json!({"run": self.run_info(self.runs.len() - 1)}))
            }
            ("GET", "runs/get") => {
                let id = query.strip_prefix("run_id=").unwrap();
                let at = id.strip_prefix("run-").and_then(|at| at.parse().ok());
                let at = at.filter(|at| *at < self.runs.len());
                Ok(json!({"run": self.run_info(at.ok_or("RESOURCE_DOES_NOT_EXIST")?)}))
            }
            ("POST", "runs/update") => {
                self.run(&text(&body["run_id"]))?.status = text(&body["status"]);
                Ok(json!({}))
            }
            ("POST", "runs/log-batch") => self.log(&body),
            _ => Err("ENDPOINT_NOT_FOUND"),
        }
    }

    fn log(&mut self, body: &Value) -> ApiResult {
        let max_length = self.max_value_length;
        let run = self.run(&text(&body["run_id"]))?;
        let params = pairs(&body["params"]);
        if params.len() > 100 || params.values().any(|value| value.len() > max_length) {
            return Err("INVALID_PARAMETER_VALUE");
        }
        for (key, value) in params {
            let before = run.params.insert(key, value.clone());
            if before.is_some_and(|before| before != value) {
                return Err("INVALID_PARAMETER_VALUE");
            }
        }
        run.tags.extend(pairs(&body["tags"]));
        for metric in body["metrics"].as_array().into_iter().flatten() {
            assert!(metric["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
            let points = run.metrics.entry(text(&metric["key"])).or_default();
            points.push((metric["step"].as_u64().unwrap(), metric["value"].clone()));
        }
        Ok(json!({}))
    }

    fn run(&mut self, id: &str) -> Result<&mut PostedRun, &'static str> {
        let at = id
            .strip_prefix("run-")
            .and_then(|at| at.parse::<usize>().ok());
        let run = at.and_then(|at| self.runs.get_mut(at));
        run.ok_or("RESOURCE_DOES_NOT_EXIST")
    }

    fn run_info(&self, at: usize) -> Value {
        let run = &self.runs[at];
        let latest: Vec<Value> = run
            .metrics
            .iter()
            .map(|(key, points)| {
                let (step, value) = points.iter().max_by_key(|(step, _)| *step).unwrap();
                json!({"key": key, "step": step, "value": value})
            })
            .collect();
        json!({
            "info": {
                "run_id": format!("run-{at}"),
                "status": run.status,
                "lifecycle_stage": if run.deleted { "deleted" } else { "active" },
                "artifact_uri": format!("mlflow-artifacts:/0/run-{at}/artifacts"),
            },
            "data": {"metrics": latest},
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn pairs(list: &Value) -> BTreeMap<String, String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|pair| (text(&pair["key"]), text(&pair["value"])))
        .collect()
}
