//! HTTP client for an MLflow server.

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

/// Timeout of a connection; an available server accepts one immediately.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a request; all requests are small.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response in bytes.
const MAX_RESPONSE_BYTES: u64 = 4 << 20;
/// Maximum number of characters of a message.
const MAX_MESSAGE_CHARS: usize = 200;

/// A client for one server.
pub(super) struct MlflowClient {
    http: Http,
    base: Url,
    credentials: Credentials,
}

/// An error of a request.
#[derive(Debug)]
pub(super) struct MlflowError {
    /// MLflow's error code; empty if the server did not send one.
    pub code: String,
    text: String,
}

impl MlflowError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            code: String::new(),
            text: text.into(),
        }
    }
}

impl fmt::Display for MlflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl MlflowClient {
    /// Creates a client without sending a request.
    pub(super) fn new(url: &MlflowUrl) -> Result<Self, String> {
        // Fails only if a provider is already installed, which is equally good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Http::builder()
            .user_agent(concat!("rgby/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // A redirected POST becomes a GET, and the credentials would go to another server.
            .redirect(Policy::none());
        if let Some(path) = env::var_os("MLFLOW_TRACKING_SERVER_CERT_PATH") {
            let invalid = |error: &dyn fmt::Display| {
                let path = path.to_string_lossy();
                format!("MLFLOW_TRACKING_SERVER_CERT_PATH={path}: {error}; name a PEM file")
            };
            let pem = fs::read(&path).map_err(|error| invalid(&error))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| invalid(&error))?;
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

    /// Sends a GET request to `path` of the REST API.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, MlflowError> {
        let mut url = self.url(&["api", "2.0", "mlflow"], path);
        url.query_pairs_mut().extend_pairs(query);
        self.call(self.http.request(Method::GET, url))
    }

    /// Posts a JSON document to `path` of the REST API.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, MlflowError> {
        let url = self.url(&["api", "2.0", "mlflow"], path);
        let request = self.http.request(Method::POST, url);
        let request = request.header(CONTENT_TYPE, "application/json");
        self.call(request.body(body.to_string()))
    }

    /// Uploads a file to `path` of the server's artifact store.
    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Value, MlflowError> {
        let url = self.url(&["api", "2.0", "mlflow-artifacts", "artifacts"], path);
        self.call(self.http.request(Method::PUT, url).body(bytes))
    }

    fn url(&self, root: &[&str], path: &str) -> Url {
        let mut url = self.base.clone();
        // Only URLs without a host have no segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(root).extend(path.split('/'));
        }
        url
    }

    fn call(&self, request: RequestBuilder) -> Result<Value, MlflowError> {
        let request = match &self.credentials {
            Credentials::None => request,
            Credentials::User(user, password) => request.basic_auth(user, Some(password)),
            Credentials::Token(token) => request.bearer_auth(token),
        };
        let response = request
            .send()
            .map_err(|error| MlflowError::new(self.clean(&reason(&error))))?;
        self.read(response)
    }

    fn read(&self, response: Response) -> Result<Value, MlflowError> {
        let status = response.status();
        let location = response.headers().get(LOCATION).cloned();
        let mut bytes = Vec::new();
        let read = response.take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| {
            MlflowError::new(self.clean(&format!("the response is incomplete: {error}")))
        })?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let code = body["error_code"].as_str().unwrap_or_default().to_owned();
        let message = body["message"].as_str().unwrap_or_default();
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and \
                 MLFLOW_TRACKING_PASSWORD"
                    .to_owned()
            }
            _ if status.is_redirection() => {
                let target = location.as_ref().and_then(|target| target.to_str().ok());
                let target = target.unwrap_or("an unknown address");
                format!("; it redirects to {target}, use that URL")
            }
            _ if code.is_empty() && status.is_client_error() => {
                "; check that an MLflow server runs at this URL".to_owned()
            }
            _ => String::new(),
        };
        let colon = if message.is_empty() { "" } else { ": " };
        let text = self.clean(&format!(
            "the server returned {status}{colon}{message}{hint}"
        ));
        Err(MlflowError { code, text })
    }

    /// Makes a message of a server or library safe to show: short, on one line, without secrets.
    fn clean(&self, text: &str) -> String {
        let text = self.credentials.hide(text).replace(char::is_control, " ");
        text.chars().take(MAX_MESSAGE_CHARS).collect()
    }
}

/// Returns the innermost cause, which is the most specific, such as `Connection refused`.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("the server did not respond within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
