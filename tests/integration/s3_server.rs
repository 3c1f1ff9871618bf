//! A mock S3 server that fails on purpose and records its requests.
//!
//! It implements the requests that rgby uses: listings in pages, complete and ranged reads, and
//! conditional writes. HTTP clients can use it as a web server. It does not check signatures.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::http_request;

/// The only bucket.
pub const BUCKET: &str = "plates";
/// The clients' secret. Error responses contain it.
pub const SECRET: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY";
const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// A fault with period `n` occurs at every `n`-th request; 0 disables it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Period of responses with status 503.
    pub busy: usize,
    /// Period of bodies that end in the middle.
    pub cut: usize,
    /// Period of pauses in the middle of a body.
    pub slow: usize,
    /// Milliseconds before every response.
    pub latency: u64,
}

/// Objects, behavior and recorded requests of the server.
#[derive(Debug, Default)]
pub struct S3ServerState {
    /// By bucket and key, for example `plates/p1/a_red.png`.
    pub objects: BTreeMap<String, Vec<u8>>,
    pub faults: Faults,
    /// Maximum number of keys in a page of a listing.
    pub page: usize,
    /// Status of the responses for these objects.
    pub status: HashMap<String, u16>,
    /// Objects that change after the first read.
    pub changing: BTreeSet<String>,
    /// Objects that are removed after the last page of a listing.
    pub vanishing: BTreeSet<String>,
    /// Received `Authorization` headers.
    pub authorizations: BTreeSet<String>,
    /// Whether all requests get status 503.
    pub dead: bool,
    /// Objects that another client overwrites just before the next conditional write.
    pub stolen: BTreeSet<String>,
    /// Every request, for example `GET plates/p1/a_red.png`, with the status of its response.
    pub requests: Vec<(String, u16)>,
    pub count: usize,
}

/// A running server. It ends with the process.
pub struct S3Server {
    pub state: Arc<Mutex<S3ServerState>>,
    pub address: String,
}

impl S3Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(S3ServerState {
            page: 1000,
            ..S3ServerState::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || respond(&stream, &state));
            }
        });
        Self { state, address }
    }

    pub fn lock(&self) -> MutexGuard<'_, S3ServerState> {
        self.state.lock().unwrap()
    }

    /// Uploads the files of a folder to `prefix`.
    pub fn upload(&self, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let key = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            self.put(&key, std::fs::read(&path).unwrap());
        }
    }

    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.lock().objects.insert(key.to_owned(), bytes.into());
    }

    pub fn has(&self, key: &str) -> bool {
        self.lock().objects.contains_key(key)
    }

    /// Returns the keys that contain `part`.
    pub fn keys(&self, part: &str) -> Vec<String> {
        let state = self.lock();
        let keys = state.objects.keys().filter(|key| key.contains(part));
        keys.cloned().collect()
    }

    /// Returns the number of these requests that got this status.
    pub fn count_requests(&self, request: &str, status: u16) -> usize {
        let state = self.lock();
        let same = |r: &&(String, u16)| r.0 == request && r.1 == status;
        state.requests.iter().filter(same).count()
    }

    pub fn text(&self, key: &str) -> String {
        String::from_utf8(self.lock().objects[key].clone()).unwrap()
    }
}

struct S3Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct S3Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn respond(stream: &TcpStream, state: &Mutex<S3ServerState>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let (response, cut, slow, latency) = {
            let mut state = state.lock().unwrap();
            state.count += 1;
            let due = |period: usize| period > 0 && state.count.is_multiple_of(period);
            let Faults {
                busy,
                cut,
                slow,
                latency,
            } = state.faults;
            let (busy, cut, slow) = (due(busy), due(cut), due(slow));
            let response = if busy || state.dead {
                error(503, "SlowDown", "Please reduce your request rate.")
            } else {
                execute(&mut state, &request)
            };
            let authorization = request.headers.get("authorization").cloned();
            state.authorizations.extend(authorization);
            let name = format!("{} {}", request.method, request.path);
            state.requests.push((name, response.status));
            (response, cut, slow, latency)
        };
        thread::sleep(Duration::from_millis(latency));
        if write_response(stream, &request, &response, (cut, slow)).is_none() {
            break;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<S3Request> {
    let request = http_request::HttpRequest::read(reader)?;
    let target = request.target.split_once('?');
    let (path, query) = target.unwrap_or((&request.target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(k, v)| (k.to_owned(), percent_decoded(&v.replace('+', " "))));
    Some(S3Request {
        path: percent_decoded(path.trim_matches('/')),
        query: query.collect(),
        method: request.method,
        headers: request.headers,
        body: request.body,
    })
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            out.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

fn execute(state: &mut S3ServerState, request: &S3Request) -> S3Response {
    let bucket = request.path.split('/').next().unwrap_or_default();
    if let Some(status) = state.status.get(&request.path) {
        // Some servers repeat the credentials.
        let message = format!("{SECRET} {:?}", request.headers.get("authorization"));
        return match *status {
            301 => S3Response {
                status: 301,
                headers: vec![("location", format!("/{BUCKET}/elsewhere.png"))],
                body: Vec::new(),
            },
            401 | 403 => error(*status, "AccessDenied", &message),
            status => error(status, "InternalFailure", &message),
        };
    }
    if request.query.contains_key("list-type") && bucket != BUCKET {
        return error(404, "NoSuchBucket", "The specified bucket does not exist");
    }
    match request.method.as_str() {
        "GET" if request.query.contains_key("list-type") => list(state, request),
        "GET" => get(state, request),
        "PUT" => put(state, request),
        "DELETE" => {
            state.objects.remove(&request.path);
            S3Response {
                status: 204,
                headers: Vec::new(),
                body: Vec::new(),
            }
        }
        _ => error(405, "MethodNotAllowed", "Not here."),
    }
}

fn error(status: u16, code: &str, message: &str) -> S3Response {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    S3Response {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..32])
}

fn list(state: &mut S3ServerState, request: &S3Request) -> S3Response {
    let text = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let prefix = format!("{}/{}", request.path, text("prefix"));
    let requested = request.query.get("max-keys").and_then(|n| n.parse().ok());
    let max_keys = state.page.min(requested.unwrap_or(usize::MAX));
    let after = text("continuation-token");
    let skip = format!("{}/", request.path).len();
    let mut folders = BTreeSet::new();
    let mut keys = Vec::new();
    for (key, bytes) in state.objects.range(prefix.clone()..) {
        let Some(rest) = key.strip_prefix(&prefix) else {
            break;
        };
        if let Some((folder, _)) = rest.split_once('/') {
            folders.insert(format!("{}{folder}/", text("prefix")));
        } else if key.as_str() > after.as_str() {
            keys.push((key.clone(), bytes.len(), etag(bytes)));
        }
    }
    let more = keys.len() > max_keys;
    keys.truncate(max_keys);
    let mut body = format!("<ListBucketResult><Name>{BUCKET}</Name>");
    for (key, size, tag) in &keys {
        let key = key[skip..].replace('&', "&amp;").replace('<', "&lt;");
        body += &format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{tag}</ETag>\
             <LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>"
        );
    }
    for folder in folders {
        body += &format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
    }
    if more {
        let last = &keys.last().unwrap().0;
        body += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    } else {
        for key in std::mem::take(&mut state.vanishing) {
            state.objects.remove(&key);
        }
    }
    body += "</ListBucketResult>";
    S3Response {
        status: 200,
        headers: vec![("content-type", "application/xml".into())],
        body: body.into_bytes(),
    }
}

fn get(state: &mut S3ServerState, request: &S3Request) -> S3Response {
    let Some(bytes) = state.objects.get(&request.path).cloned() else {
        return error(404, "NoSuchKey", "The specified key does not exist.");
    };
    let tag = etag(&bytes);
    if request
        .headers
        .get("if-match")
        .is_some_and(|expected| *expected != tag)
    {
        return error(412, "PreconditionFailed", "It is another one now.");
    }
    if state.changing.remove(&request.path) {
        let object = state.objects.get_mut(&request.path).unwrap();
        object[0] ^= 1;
    }
    let mut headers = vec![("etag", tag), ("last-modified", DATE.into())];
    let Some(range) = request.headers.get("range") else {
        return S3Response {
            status: 200,
            headers,
            body: bytes,
        };
    };
    let (start, end) = range["bytes=".len()..].split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    let end = end.min(bytes.len() - 1);
    headers.push((
        "content-range",
        format!("bytes {start}-{end}/{}", bytes.len()),
    ));
    S3Response {
        status: 206,
        headers,
        body: bytes[start..=end].to_vec(),
    }
}

fn put(state: &mut S3ServerState, request: &S3Request) -> S3Response {
    let replaces = request.headers.contains_key("if-match");
    if replaces && state.stolen.remove(&request.path) {
        state
            .objects
            .insert(request.path.clone(), b"another's".to_vec());
    }
    let current = state.objects.get(&request.path).map(|bytes| etag(bytes));
    let none = request.headers.contains_key("if-none-match");
    let expected = request.headers.get("if-match");
    if (none && current.is_some()) || (expected.is_some() && expected != current.as_ref()) {
        return error(412, "PreconditionFailed", "It is another one now.");
    }
    let tag = etag(&request.body);
    let body = request.body.clone();
    state.objects.insert(request.path.clone(), body);
    S3Response {
        status: 200,
        headers: vec![("etag", tag)],
        body: Vec::new(),
    }
}

/// Writes a response; `None` closes the connection.
fn write_response(
    mut stream: &TcpStream,
    request: &S3Request,
    response: &S3Response,
    (cut, slow): (bool, bool),
) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", response.status);
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", response.body.len());
    stream.write_all(head.as_bytes()).ok()?;
    let (first, second) = response.body.split_at(response.body.len() / 2);
    stream.write_all(first).ok()?;
    if cut && request.method == "GET" && !response.body.is_empty() {
        return None;
    }
    if slow {
        thread::sleep(Duration::from_millis(300));
    }
    stream.write_all(second).ok()
}
