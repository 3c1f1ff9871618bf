//! Minimal HTTP/1.1 request parser for the tests' mock servers.

use std::collections::HashMap;
use std::io::BufRead;

/// A request with its complete body.
pub struct HttpRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub version: String,
    /// By lower-case names.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// Reads a request; `None` if the connection is closed.
    pub fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length");
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        Some(Self {
            method,
            target,
            version,
            headers,
            body,
        })
    }
}
