//! Helpers that start a server and send requests, including malformed ones.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rgby::graph::{ModelProto, TensorProto};
use serde_json::{Value, json};

use super::support::{FLOAT, change_spec, node, rgby, signal, skipped, tiny_model, value};

/// Timeout of all waits; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A server process, killed on drop.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    pub grpc: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts `rgby serve --model model.onnx` with further arguments in `dir`; waits until ready.
    pub fn start(dir: &Path, args: &str) -> Self {
        Self::start_with(dir, &format!("--model model.onnx {args}"))
    }

    /// Starts `rgby serve` with arguments in `dir`; waits until ready.
    pub fn start_with(dir: &Path, args: &str) -> Self {
        Self::start_in(dir, args, &[])
    }

    /// Starts `rgby serve` with arguments and environment variables in `dir`; waits until ready.
    pub fn start_in(dir: &Path, args: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = rgby();
        command.arg("serve");
        if !args.contains("--addr") {
            command.args(["--addr", "127.0.0.1:0"]);
        }
        command
            .args(args.split_whitespace())
            .envs(variables.iter().copied())
            .current_dir(dir);
        Self::run(command)
    }

    /// Runs a command that executes `rgby serve`; waits until ready.
    pub fn run(mut command: Command) -> Self {
        let (mut child, log, lines) = spawn(&mut command);
        let start = Instant::now();
        let mut grpc = None;
        while start.elapsed() < PATIENCE {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    grpc = grpc.or(address(&line, "grpc"));
                    if let Some(addr) = address(&line, "http") {
                        return Self {
                            child,
                            addr,
                            grpc,
                            log,
                        };
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        let _ = child.kill();
        panic!("{command:?} was not ready: {}", log.lock().unwrap());
    }

    /// Returns the stderr output so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn connect(&self) -> TcpStream {
        Self::connect_to(self.addr)
    }

    pub fn connect_to(addr: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// Sends one request on a new connection.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpResponse {
        let mut stream = self.connect();
        send(&mut stream, method, path, headers, body).unwrap();
        receive(&mut stream).unwrap()
    }

    /// Asserts that the server is ready and that nothing panicked.
    pub fn assert_healthy(&self) {
        assert_eq!(self.get("/v2/health/ready").status, 200);
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// Waits until the value of a metric fulfills `condition`. `metric` has the name and labels as
    /// in `/metrics`.
    pub fn wait_for(&self, metric: &str, condition: impl Fn(f64) -> bool) {
        let start = Instant::now();
        while !condition(self.metric(metric)) {
            assert!(
                start.elapsed() < PATIENCE,
                "{metric}: {}",
                self.metric(metric)
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the value of a metric; 0 if it does not exist.
    pub fn metric(&self, metric: &str) -> f64 {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(metric));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text}: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the process to exit; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the server does not exit: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process, its log so far, and the lines of the log.
type SpawnedServer = (Child, Arc<Mutex<String>>, Receiver<String>);

fn spawn(command: &mut Command) -> SpawnedServer {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let log: Arc<Mutex<String>> = Arc::default();
    let (sender, lines) = mpsc::channel();
    let copy = log.clone();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            *copy.lock().unwrap() += &format!("{line}\n");
            let _ = sender.send(line);
        }
    });
    (child, log, lines)
}

/// Returns the address in a `ready` line.
pub fn address(line: &str, scheme: &str) -> Option<SocketAddr> {
    let (before, url) = line.split_once(scheme)?;
    let (_, address) = url.split_once("://")?;
    let address = address.trim_end_matches(['"', '}']);
    before.contains("ready").then(|| address.parse().unwrap())
}

/// Sends a request. The default host is `test`.
pub fn send(
    stream: &mut impl Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if headers.iter().all(|(name, _)| *name != "host") {
        head += "host: test\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Reads one response.
pub fn receive(stream: &mut impl Read) -> io::Result<HttpResponse> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut response = HttpResponse {
        status,
        headers,
        body: Vec::new(),
    };
    let length = response
        .header("content-length")
        .map(|length| length.parse().unwrap());
    response.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut response.body)?;
    Ok(response)
}

impl HttpResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Returns the message of an error response.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// Returns the values of the first output.
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.status, 200, "{}", self.text());
        let values = &self.json()["outputs"][0]["data"];
        serde_json::from_value(values.clone()).unwrap()
    }
}

/// Returns an inference request of raw planes of 2×2 pixels, with one gray value per plane.
pub fn planes(images: &[[u8; 4]]) -> Value {
    let pixels = images.iter().flatten().flat_map(|gray| [*gray; 4]);
    let pixels: Vec<u8> = pixels.collect();
    json!({"inputs": [{
        "name": "planes", "datatype": "UINT8", "shape": [images.len(), 4, 2, 2], "data": pixels,
    }]})
}

/// Returns an HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the path of a script in `tests/clients` that drives Chromium; `None` if Node.js or
/// Chromium is missing.
pub fn browser_script(name: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name);
    let check = Command::new("node").arg(&script).arg("--check").output();
    match check {
        Ok(output) if output.status.success() => return Some(script),
        Ok(output) => skipped(String::from_utf8_lossy(&output.stdout).trim()),
        Err(_) => skipped("Node.js is not installed; it drives Chromium"),
    }
    None
}

/// Returns the content type and body of a form with files.
pub fn form(fields: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in fields {
        let head = format!(
            "--line\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--line--\r\n");
    ("multipart/form-data; boundary=line".into(), body)
}

/// Side of [`slow_model`]'s input.
const SLOW_SIDE: u32 = 128;

/// Returns a slow model: `layers` convolutions of 28 channels with zero weights. All of its
/// probabilities are 0.5.
pub fn slow_model(layers: usize) -> ModelProto {
    let mut model = tiny_model();
    change_spec(&mut model, |spec| spec.preprocess.size = SLOW_SIDE);
    let graph = model.graph.as_mut().unwrap();
    let side = i64::from(SLOW_SIDE);
    graph.input = vec![value("image", &[4, side, side])];
    graph.initializer = vec![
        zeros("first", &[28, 4, 1, 1]),
        zeros("filter", &[28, 28, 3, 3]),
    ];
    graph.node = vec![node("Conv", &["image", "first"], "layer0")];
    for layer in 0..layers {
        let (input, output) = (format!("layer{layer}"), format!("layer{}", layer + 1));
        graph.node.push(node("Conv", &[&input, "filter"], &output));
    }
    let last = format!("layer{layers}");
    graph
        .node
        .push(node("GlobalAveragePool", &[&last], "pooled"));
    graph.node.push(node("Flatten", &["pooled"], "flat"));
    graph.node.push(node("Sigmoid", &["flat"], "probabilities"));
    model
}

fn zeros(name: &str, shape: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = shape.to_vec();
    tensor.data_type = FLOAT;
    tensor.float_data = vec![0.0; shape.iter().product::<i64>() as usize];
    tensor
}

/// Returns an inference request of one black image for [`slow_model`], as raw planes.
pub fn slow_request() -> Value {
    planes(&[[0; 4]])
}
