//! A small S3 that fails on purpose, and counts what it is asked for.
//!
//! It knows what rgby asks for: listings in pages, objects, whole and in ranges, and conditional
//! writes. To a plain HTTP client it is a web server. Signatures are not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::http_request;

/// The bucket that is there.
pub const BUCKET: &str = "plates";
/// A secret that clients have, and that answers repeat.
pub const SECRET: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY";
const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// How often something goes wrong: with each request of this number; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Answers with 503.
    pub busy: usize,
    /// Ends a body in its middle.
    pub cut: usize,
    /// Pauses in the middle of a body.
    pub slow: usize,
    /// Milliseconds before any answer.
    pub latency: u64,
}

/// What the server has and does.
#[derive(Debug, Default)]
pub struct State {
    /// By bucket and key: `plates/p1/a_red.png`.
    pub objects: BTreeMap<String, Vec<u8>>,
    pub faults: Faults,
    /// Names in a page of a listing.
    pub page: usize,
    /// Objects that answer with this status.
    pub status: HashMap<String, u16>,
    /// Objects that become others when they were read once.
    pub changing: BTreeSet<String>,
    /// Objects that go when the listing has been answered.
    pub vanishing: BTreeSet<String>,
    /// What clients gave as `Authorization`.
    pub authorizations: BTreeSet<String>,
    /// Whether all requests are answered with 503.
    pub dead: bool,
    /// Objects that somebody else writes just before they are replaced.
    pub stolen: BTreeSet<String>,
    /// Every request, as `GET plates/p1/a_red.png`, with the status of its answer.
    pub requests: Vec<(String, u16)>,
    pub count: usize,
}

/// A running server; it ends with the process.
pub struct Server {
    pub state: Arc<Mutex<State>>,
    pub address: String,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State {
            page: 1000,
            ..State::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { state, address }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts the files of a folder at `prefix`.
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

    /// The objects that have this in their key.
    pub fn keys(&self, part: &str) -> Vec<String> {
        let state = self.lock();
        let keys = state.objects.keys().filter(|key| key.contains(part));
        keys.cloned().collect()
    }

    /// How often something was answered with this status.
    pub fn answered(&self, request: &str, status: u16) -> usize {
        let state = self.lock();
        let same = |r: &&(String, u16)| r.0 == request && r.1 == status;
        state.requests.iter().filter(same).count()
    }

    /// The text of an object.
    pub fn text(&self, key: &str) -> String {
        String::from_utf8(self.lock().objects[key].clone()).unwrap()
    }
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let (answer, cut, slow, latency) = {
            let mut state = state.lock().unwrap();
            state.count += 1;
            let due = |every: usize| every > 0 && state.count.is_multiple_of(every);
            let Faults {
                busy,
                cut,
                slow,
                latency,
            } = state.faults;
            let (busy, cut, slow) = (due(busy), due(cut), due(slow));
            let answer = if busy || state.dead {
                error(503, "SlowDown", "Please reduce your request rate.")
            } else {
                answer(&mut state, &request)
            };
            let authorization = request.headers.get("authorization").cloned();
            state.authorizations.extend(authorization);
            let name = format!("{} {}", request.method, request.path);
            state.requests.push((name, answer.status));
            (answer, cut, slow, latency)
        };
        thread::sleep(Duration::from_millis(latency));
        if write_answer(stream, &request, &answer, (cut, slow)).is_none() {
            break;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let request = http_request::HttpRequest::read(reader)?;
    let target = request.target.split_once('?');
    let (path, query) = target.unwrap_or((&request.target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(k, v)| (k.to_owned(), decoded(&v.replace('+', " "))));
    Some(Request {
        path: decoded(path.trim_matches('/')),
        query: query.collect(),
        method: request.method,
        headers: request.headers,
        body: request.body,
    })
}

fn decoded(text: &str) -> String {
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

fn answer(state: &mut State, request: &Request) -> Answer {
    let bucket = request.path.split('/').next().unwrap_or_default();
    if let Some(status) = state.status.get(&request.path) {
        // A server that repeats what it was sent.
        let told = format!("{SECRET} {:?}", request.headers.get("authorization"));
        return match *status {
            301 => Answer {
                status: 301,
                headers: vec![("location", format!("/{BUCKET}/elsewhere.png"))],
                body: Vec::new(),
            },
            401 | 403 => error(*status, "AccessDenied", &told),
            status => error(status, "InternalFailure", &told),
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
            Answer {
                status: 204,
                headers: Vec::new(),
                body: Vec::new(),
            }
        }
        _ => error(405, "MethodNotAllowed", "Not here."),
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Answer {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
    }
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..32])
}

fn list(state: &mut State, request: &Request) -> Answer {
    let text = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let prefix = format!("{}/{}", request.path, text("prefix"));
    let wanted = request.query.get("max-keys").and_then(|n| n.parse().ok());
    let most = state.page.min(wanted.unwrap_or(usize::MAX));
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
            keys.push((key.clone(), bytes.len(), tag(bytes)));
        }
    }
    let more = keys.len() > most;
    keys.truncate(most);
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
    Answer {
        status: 200,
        headers: vec![("content-type", "application/xml".into())],
        body: body.into_bytes(),
    }
}

fn get(state: &mut State, request: &Request) -> Answer {
    let Some(bytes) = state.objects.get(&request.path).cloned() else {
        return error(404, "NoSuchKey", "The specified key does not exist.");
    };
    let tag = tag(&bytes);
    if request
        .headers
        .get("if-match")
        .is_some_and(|wanted| *wanted != tag)
    {
        return error(412, "PreconditionFailed", "It is another one now.");
    }
    if state.changing.remove(&request.path) {
        let object = state.objects.get_mut(&request.path).unwrap();
        object[0] ^= 1;
    }
    let mut headers = vec![("etag", tag), ("last-modified", DATE.into())];
    let Some(range) = request.headers.get("range") else {
        return Answer {
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
    Answer {
        status: 206,
        headers,
        body: bytes[start..=end].to_vec(),
    }
}

fn put(state: &mut State, request: &Request) -> Answer {
    let replaces = request.headers.contains_key("if-match");
    if replaces && state.stolen.remove(&request.path) {
        state
            .objects
            .insert(request.path.clone(), b"another's".to_vec());
    }
    let there = state.objects.get(&request.path).map(|bytes| tag(bytes));
    let none = request.headers.contains_key("if-none-match");
    let wanted = request.headers.get("if-match");
    if (none && there.is_some()) || (wanted.is_some() && wanted != there.as_ref()) {
        return error(412, "PreconditionFailed", "It is another one now.");
    }
    let tag = tag(&request.body);
    let body = request.body.clone();
    state.objects.insert(request.path.clone(), body);
    Answer {
        status: 200,
        headers: vec![("etag", tag)],
        body: Vec::new(),
    }
}

/// `None` if the connection is over.
fn write_answer(
    mut stream: &TcpStream,
    request: &Request,
    answer: &Answer,
    (cut, slow): (bool, bool),
) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", answer.body.len());
    stream.write_all(head.as_bytes()).ok()?;
    let (first, second) = answer.body.split_at(answer.body.len() / 2);
    stream.write_all(first).ok()?;
    if cut && request.method == "GET" && !answer.body.is_empty() {
        return None;
    }
    if slow {
        thread::sleep(Duration::from_millis(300));
    }
    stream.write_all(second).ok()
}
