//! A small MLflow tracking server that fails on purpose.
//!
//! It knows what rgby asks for, and refuses what MLflow refuses: changed parameters, too many of
//! them, runs that are not there.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http_request::HttpRequest;

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// Every request is answered with 500.
    Broken,
    /// None is answered.
    Silent,
    /// It is no MLflow server.
    Other,
    /// It sends on to another server.
    Moved,
}

/// A run.
#[derive(Debug, Default)]
pub struct Run {
    pub name: String,
    pub status: String,
    pub deleted: bool,
    pub tags: BTreeMap<String, String>,
    pub params: BTreeMap<String, String>,
    /// Every number that was posted, by name: step and value.
    pub metrics: BTreeMap<String, Vec<(u64, Value)>>,
    /// Files by their path.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct State {
    pub mood: Mood,
    /// Of so many requests; then it is well again. Without it, of all.
    pub for_requests: Option<usize>,
    pub experiments: Vec<String>,
    /// Their ids are `run-0`, `run-1`, …
    pub runs: Vec<Run>,
    pub requests: Vec<String>,
    /// The request of this number is done, and not answered.
    pub mute_at: usize,
    /// What clients have to give as `Authorization`.
    pub wanted: Option<String>,
    /// Longest value of a parameter.
    pub most: usize,
}

pub struct Server {
    pub state: Arc<Mutex<State>>,
    pub url: String,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            most: 6000,
            ..State::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || while answer(&stream, &state).is_some() {});
            }
        });
        Self { state, url }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Answers a request; `None` when the connection is to be closed.
fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let request = HttpRequest::read(&mut BufReader::new(stream))?;
    let authorization = request.headers.get("authorization");
    let (method, target) = (&*request.method, &*request.target);
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{method} {target}"));
    let (mood, mute) = (state.mood, state.requests.len() == state.mute_at);
    if let Some(left) = &mut state.for_requests {
        *left -= 1;
        if *left == 0 {
            state.for_requests = None;
            state.mood = Mood::Well;
        }
    }
    if mood == Mood::Silent {
        drop(state);
        thread::sleep(Duration::from_mins(1));
        return None;
    }
    let (status, answer) = match mood {
        Mood::Broken => (
            500,
            json!({"error_code": "INTERNAL_ERROR", "message": "no\ndisk"}),
        ),
        Mood::Other => (404, Value::Null),
        Mood::Moved => (302, Value::Null),
        _ if state.wanted.is_some() && state.wanted.as_ref() != authorization => {
            // Some repeat what they were given.
            let said = format!("wrong: {}", authorization.map_or("", String::as_str));
            (
                401,
                json!({"error_code": "UNAUTHENTICATED", "message": said}),
            )
        }
        _ => match state.act(method, target, &request.body) {
            Ok(answer) => (200, answer),
            Err(code) if code.ends_with("NOT_EXIST") => (404, json!({"error_code": code})),
            Err(code) => (400, json!({"error_code": code, "message": "so it is"})),
        },
    };
    drop(state);
    if mute {
        return None;
    }
    let text = if answer.is_null() {
        "<html>".into()
    } else {
        answer.to_string()
    };
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nlocation: http://elsewhere/\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).ok()
}

type Answer = Result<Value, &'static str>;

impl State {
    fn act(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
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
                let tagged = |run: &Run| run.tags.get("rgby.run").is_some_and(|tag| tag == key);
                let found = self.runs.iter().position(tagged);
                Ok(found.map_or(json!({}), |at| json!({"runs": [self.told(at)]})))
            }
            ("POST", "runs/create") => {
                self.runs.push(Run {
                    name: text(&body["run_name"]),
                    status: "RUNNING".into(),
                    tags: pairs(&body["tags"]),
                    ..Run::default()
                });
                Ok(json!({"run": self.told(self.runs.len() - 1)}))
            }
            ("GET", "runs/get") => {
                let id = query.strip_prefix("run_id=").unwrap();
                let at = id.strip_prefix("run-").and_then(|at| at.parse().ok());
                let at = at.filter(|at| *at < self.runs.len());
                Ok(json!({"run": self.told(at.ok_or("RESOURCE_DOES_NOT_EXIST")?)}))
            }
            ("POST", "runs/update") => {
                self.run(&text(&body["run_id"]))?.status = text(&body["status"]);
                Ok(json!({}))
            }
            ("POST", "runs/log-batch") => self.log(&body),
            _ => Err("ENDPOINT_NOT_FOUND"),
        }
    }

    fn log(&mut self, body: &Value) -> Answer {
        let most = self.most;
        let run = self.run(&text(&body["run_id"]))?;
        let params = pairs(&body["params"]);
        if params.len() > 100 || params.values().any(|value| value.len() > most) {
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

    fn run(&mut self, id: &str) -> Result<&mut Run, &'static str> {
        let at = id
            .strip_prefix("run-")
            .and_then(|at| at.parse::<usize>().ok());
        let run = at.and_then(|at| self.runs.get_mut(at));
        run.ok_or("RESOURCE_DOES_NOT_EXIST")
    }

    fn told(&self, at: usize) -> Value {
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
