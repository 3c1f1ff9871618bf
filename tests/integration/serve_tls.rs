//! TLS: clients with and without TLS, unusable files, and renewed certificates.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::serve_support::{PATIENCE, Server, frame, planes, receive, send};
use super::support::{assert_refused, skipped, workplace};

pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

const INFER: &str = "/v2/models/rgby/infer";
const ARGS: &str = "--tls-cert cert.pem --tls-key key.pem";

/// Runs openssl in `dir` with arguments separated by spaces; returns whether it is installed.
fn openssl(dir: &Path, args: &str) -> bool {
    let args = args.split_whitespace();
    match Command::new("openssl").args(args).current_dir(dir).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            true
        }
        Err(error) => {
            skipped(format_args!("no openssl to make certificates: {error}"));
            false
        }
    }
}

/// Creates a self-signed certificate for 127.0.0.1 and its key; returns whether openssl is
/// installed.
pub fn certificate(dir: &Path, cert: &str, key: &str) -> bool {
    openssl(
        dir,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=rgby \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
             -keyout {key} -out {cert}"
        ),
    )
}

fn read_certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// Connects, trusting only the given certificate.
fn connect(
    server: &Server,
    cert: &Path,
    protocol: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsClient> {
    let mut roots = RootCertStore::empty();
    roots.add(read_certificate(cert)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let name = server.addr.ip().into();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(client, server.connect());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    assert_eq!(stream.conn.alpn_protocol(), Some(protocol.as_bytes()));
    Ok(stream)
}

/// Connects with HTTP/1.1.
pub fn https(server: &Server, cert: &Path) -> TlsClient {
    connect(server, cert, "http/1.1", &[&TLS13]).unwrap()
}

fn assert_ready(stream: &mut TlsClient) {
    send(stream, "GET", "/v2/health/ready", &[], b"").unwrap();
    assert_eq!(receive(stream).unwrap().status, 200);
}

#[test]
fn http_1_and_2_work_over_tls() {
    let dir = workplace();
    if !certificate(dir.path(), "cert.pem", "key.pem") {
        return;
    }
    let cert = dir.path().join("cert.pem");
    let server = Server::start(dir.path(), ARGS);
    assert!(server.log().contains("ready: https://127.0.0.1:"));
    let body = planes(&[[255; 4]]).to_string();
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(&server, &cert, "http/1.1", &[version]).unwrap();
        // Two requests on one connection.
        for _ in 0..2 {
            send(&mut stream, "POST", INFER, &[], body.as_bytes()).unwrap();
            assert_eq!(receive(&mut stream).unwrap().values().len(), 28);
        }
    }

    let mut stream = connect(&server, &cert, "h2", &[&TLS13]).unwrap();
    // GET over https: entries 2 and 7 of HPACK's static table; path and authority as literals.
    let path = b"/v2/health/ready";
    let headers = [
        &[0x82, 0x87, 0x04, path.len() as u8],
        &path[..],
        b"\x01\x04test",
    ]
    .concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let request = [
        &preface[..],
        &frame(4, 0, 0, b""),
        &frame(1, 5, 1, &headers),
    ]
    .concat();
    stream.write_all(&request).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        // HEADERS; the first one is entry 8, `:status: 200`.
        if head[3] == 1 {
            let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
            assert_eq!(status, Some(&0x88), "{payload:?}");
            break;
        }
        assert!([4, 6, 8].contains(&head[3]), "frame {head:?}");
    }
    assert_ready(&mut https(&server, &cert));
}

#[test]
fn slow_clients_and_clients_without_tls_do_not_block_others() {
    let dir = workplace();
    if !certificate(dir.path(), "cert.pem", "key.pem") {
        return;
    }
    let cert = dir.path().join("cert.pem");
    let server = Server::start(dir.path(), &format!("{ARGS} --read-timeout 2s"));
    let response = server.get("/v2/health/ready");
    assert_eq!(response.status, 400);
    assert!(response.error().contains("https://"), "{response:?}");

    let start = Instant::now();
    // Nothing; the start of a ClientHello; more bytes than its length field.
    let beginnings: [&[u8]; 3] = [b"", b"\x16\x03\x01\x02\x00\x01", &[0x16; 4096]];
    let mut slow: Vec<_> = (0..60)
        .map(|number| {
            let mut stream = server.connect();
            // The server may refuse the third kind while it is being sent.
            let _ = stream.write_all(beginnings[number % 3]);
            stream
        })
        .collect();
    assert_ready(&mut https(&server, &cert));
    for stream in &mut slow {
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    assert_ready(&mut https(&server, &cert));
}

#[test]
fn unusable_files_are_named_in_the_error() {
    let dir = workplace();
    let path = dir.path();
    if !certificate(path, "cert.pem", "key.pem") || !certificate(path, "other.pem", "other-key.pem")
    {
        return;
    }
    fs::write(path.join("text.pem"), "no PEM").unwrap();
    let sealed = "pkey -in key.pem -aes256 -passout pass:1234 -out sealed.pem";
    openssl(path, sealed);
    openssl(
        path,
        "ecparam -name secp256k1 -genkey -noout -out curve.pem",
    );
    let der = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    fs::write(path.join("empty.pem"), der).unwrap();
    let serve = |cert: &str, key: &str| {
        format!("serve --model model.onnx --addr 127.0.0.1:0 --tls-cert {cert} --tls-key {key}")
    };
    let cases = [
        ("nowhere.pem", "key.pem", ["--tls-cert nowhere.pem", "read"]),
        ("text.pem", "key.pem", ["--tls-cert text.pem", "PEM file"]),
        ("key.pem", "key.pem", ["--tls-cert key.pem", "no such PEM"]),
        ("empty.pem", "key.pem", ["--tls-cert empty.pem", "used"]),
        ("cert.pem", "nowhere.pem", ["--tls-key nowhere.pem", "read"]),
        (
            "cert.pem",
            "cert.pem",
            ["--tls-key cert.pem", "no such PEM"],
        ),
        ("cert.pem", "sealed.pem", ["--tls-key sealed.pem", "encry"]),
        ("cert.pem", "curve.pem", ["--tls-key curve.pem", "P-256"]),
        (
            "cert.pem",
            "other-key.pem",
            ["--tls-key other-key.pem", "belong"],
        ),
    ];
    for (cert, key, expected) in cases {
        assert_refused(path, &[(&serve(cert, key), &expected)]);
    }
    let serve = "serve --model model.onnx --addr 127.0.0.1:0";
    for (one, other) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
        assert_refused(path, &[(&format!("{serve} {one} key.pem"), &[other])]);
    }
}

#[test]
fn a_reload_uses_a_renewed_certificate_and_rejects_a_broken_one() {
    let dir = workplace();
    let path = dir.path();
    if !certificate(path, "first.pem", "first-key.pem") {
        return;
    }
    certificate(path, "second.pem", "second-key.pem");
    let put = |which: &str| {
        fs::copy(path.join(format!("{which}.pem")), path.join("cert.pem")).unwrap();
        fs::copy(path.join(format!("{which}-key.pem")), path.join("key.pem")).unwrap();
    };
    let [first, second] = ["first.pem", "second.pem"].map(|name| path.join(name));
    put("first");
    let server = Server::start(path, ARGS);
    let mut old = https(&server, &first);
    assert!(connect(&server, &second, "http/1.1", &[&TLS13]).is_err());
    put("second");
    server.signal("HUP");
    server.wait_for_log("reloaded the certificate");
    assert_ready(&mut https(&server, &second));
    assert!(connect(&server, &first, "http/1.1", &[&TLS13]).is_err());
    // Existing connections stay open.
    assert_ready(&mut old);
    fs::copy(&first, path.join("cert.pem")).unwrap();
    server.signal("HUP");
    server.wait_for_log("kept the previous certificate");
    assert!(server.log().contains("does not belong to"));
    assert_ready(&mut https(&server, &second));
}

#[test]
fn exposed_keys_cause_warnings() {
    let dir = workplace();
    let path = dir.path();
    if !certificate(path, "cert.pem", "key.pem") {
        return;
    }
    let log_with_mode = |mode| {
        fs::set_permissions(path.join("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
        fs::write(path.join("keys"), "0123456789abcdef").unwrap();
        let all = format!("{ARGS} --addr 0.0.0.0:0 --api-key-file keys");
        Server::start(path, &all).log()
    };
    let log = log_with_mode(0o644);
    assert!(log.contains("--tls-key key.pem: all users of this machine can read the file"));
    let log = log_with_mode(0o640);
    assert!(!log.contains("WARN"), "{log}");

    // API keys without TLS cause a warning unless the address is a loopback address.
    let server = Server::start(path, "--addr 0.0.0.0:0 --api-key-file keys");
    assert!(server.log().contains("unencrypted"), "{}", server.log());
    let server = Server::start(path, "--api-key-file keys");
    assert!(!server.log().contains("unencrypted"), "{}", server.log());
}

/// TLS connections are closed properly.
#[test]
fn a_server_with_tls_shuts_down_gracefully() {
    let dir = workplace();
    if !certificate(dir.path(), "cert.pem", "key.pem") {
        return;
    }
    let mut server = Server::start(dir.path(), ARGS);
    let mut idle = https(&server, &dir.path().join("cert.pem"));
    assert_ready(&mut idle);
    // A connection in the middle of its handshake.
    let _silent = server.connect();
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{}",
        server.log()
    );
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
