//! Requests to an MLflow server, and what can be wrong with its answers.

use std::env;
use std::fmt;
use std::fs;
use std::io::Read;
use std::time::Duration;

use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, StatusCode, Url};
use serde_json::Value;

use super::url::{Credentials, MlflowUrl};

/// A server that is there takes a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is small; whoever has not answered it by then will not.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MOST_BYTES: u64 = 4 << 20;
/// Most characters of a server's words that are repeated.
const MOST_WORDS: usize = 200;

/// Speaks to one server.
pub(super) struct MlflowClient {
    http: Http,
    base: Url,
    credentials: Credentials,
}

/// Why a request did not do what it should.
#[derive(Debug)]
pub(super) struct MlflowFault {
    /// MLflow's name of the error, if it answered.
    pub code: String,
    text: String,
}

impl MlflowFault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            code: String::new(),
            text: text.into(),
        }
    }
}

impl fmt::Display for MlflowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl MlflowClient {
    /// Prepares for requests, and makes none.
    pub(super) fn new(url: &MlflowUrl) -> Result<Self, String> {
        // Refused only if another one was chosen before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Http::builder()
            .user_agent(concat!("rgby/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // A POST that is redirected becomes a GET, and credentials would go elsewhere.
            .redirect(Policy::none());
        if let Some(path) = env::var_os("MLFLOW_TRACKING_SERVER_CERT_PATH") {
            let wrong = |error: &dyn fmt::Display| {
                let path = path.to_string_lossy();
                format!("MLFLOW_TRACKING_SERVER_CERT_PATH={path}: {error}; name a PEM file")
            };
            let pem = fs::read(&path).map_err(|error| wrong(&error))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            http = http.tls_certs_only(certificates);
        }
        let insecure = env::var("MLFLOW_TRACKING_INSECURE_TLS").unwrap_or_default();
        if matches!(insecure.to_lowercase().as_str(), "true" | "1") {
            http = http.tls_danger_accept_invalid_certs(true);
        }
        let base = url.to_string();
        Ok(Self {
            http: http.build().map_err(|error| reason(&error))?,
            base: base.parse().map_err(|error| format!("{base}: {error}"))?,
            credentials: Credentials::of(url),
        })
    }

    /// Asks for `path` of the REST API with a query.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, MlflowFault> {
        let mut url = self.url(&["api", "2.0", "mlflow"], path);
        url.query_pairs_mut().extend_pairs(query);
        self.call(self.http.request(Method::GET, url))
    }

    /// Posts a document to `path` of the REST API.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, MlflowFault> {
        let url = self.url(&["api", "2.0", "mlflow"], path);
        let request = self.http.request(Method::POST, url);
        let request = request.header(CONTENT_TYPE, "application/json");
        self.call(request.body(body.to_string()))
    }

    /// Puts a file to `path` of the server's artifact store.
    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Value, MlflowFault> {
        let url = self.url(&["api", "2.0", "mlflow-artifacts", "artifacts"], path);
        self.call(self.http.request(Method::PUT, url).body(bytes))
    }

    fn url(&self, root: &[&str], path: &str) -> Url {
        let mut url = self.base.clone();
        // None but URLs without a host have no segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(root).extend(path.split('/'));
        }
        url
    }

    fn call(&self, request: RequestBuilder) -> Result<Value, MlflowFault> {
        let request = match &self.credentials {
            Credentials::None => request,
            Credentials::User(user, password) => request.basic_auth(user, Some(password)),
            Credentials::Token(token) => request.bearer_auth(token),
        };
        let response = request
            .send()
            .map_err(|error| MlflowFault::new(self.say(&reason(&error))))?;
        self.read(response)
    }

    fn read(&self, response: Response) -> Result<Value, MlflowFault> {
        let status = response.status();
        let elsewhere = response.headers().get(LOCATION).cloned();
        let mut bytes = Vec::new();
        let read = response.take(MOST_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| {
            MlflowFault::new(self.say(&format!("the answer breaks off: {error}")))
        })?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let code = body["error_code"].as_str().unwrap_or_default().to_owned();
        let said = body["message"].as_str().unwrap_or_default();
        let mend = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and \
                 MLFLOW_TRACKING_PASSWORD"
                    .to_owned()
            }
            _ if status.is_redirection() => {
                let place = elsewhere.as_ref().and_then(|place| place.to_str().ok());
                format!("; it sends on to {}: name that", place.unwrap_or("nowhere"))
            }
            _ if code.is_empty() && status.is_client_error() => {
                "; is there an MLflow server at this URL?".to_owned()
            }
            _ => String::new(),
        };
        let colon = if said.is_empty() { "" } else { ": " };
        let text = self.say(&format!("it answers {status}{colon}{said}{mend}"));
        Err(MlflowFault { code, text })
    }

    /// Words of a server or library, for people: short, on one line, without secrets.
    fn say(&self, text: &str) -> String {
        let clean = self.credentials.hide(text).replace(char::is_control, " ");
        clean.chars().take(MOST_WORDS).collect()
    }
}

/// The innermost cause, which says most: `Connection refused`.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("it does not answer within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
