//! TLS: a certificate and its key, read from files and reloaded after a renewal.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, InconsistentKeys, ServerConfig};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// ALPN protocols in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The response to a client that sends HTTP without TLS.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    connection: close\r\ncontent-type: application/json\r\ncontent-length: 62\r\n\r\n\
    {\"error\":\"this server requires TLS: use an https:// address\"}\n";

/// Paths of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM; the server's certificate first, then the intermediate certificates.
    pub cert: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
}

/// TLS 1.2 and 1.3 with a reloadable certificate.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

/// A certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{flag} {}: cannot read the file: {cause}", path.display())]
    Io {
        /// `--tls-cert` or `--tls-key`.
        flag: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("{flag} {}: {reason}\nhint: use a PEM file with {expected}", path.display())]
    Pem {
        /// `--tls-cert` or `--tls-key`.
        flag: &'static str,
        path: PathBuf,
        reason: &'static str,
        /// What the file must contain.
        expected: &'static str,
    },
    #[error(
        "--tls-key {}: the key is encrypted\nhint: decrypt it: openssl pkey -in FILE -out KEY",
        .0.display()
    )]
    Encrypted(PathBuf),
    #[error(
        "--tls-cert {}: the first certificate cannot be used: {cause}",
        path.display()
    )]
    Certificate { path: PathBuf, cause: Error },
    #[error(
        "--tls-key {}: the key cannot be used: {reason}\nhint: use an RSA key of 2048 to 4096 \
         bits, an ECDSA key on P-256 or P-384, or an Ed25519 key",
        path.display()
    )]
    Key { path: PathBuf, reason: String },
    #[error(
        "--tls-key {}: the key does not belong to the first certificate in --tls-cert {}\nhint: \
         put the server's certificate first, and use the key it was created with",
        key.display(),
        cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
}

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`] if a file cannot be read or used.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(config(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); the previous certificate then stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(config(&self.files)?.into());
        Ok(())
    }

    /// Performs the handshake with a client. It has no deadline.
    ///
    /// # Errors
    ///
    /// The client disconnects, does not use TLS, or the handshake fails.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        if first[0].is_ascii_uppercase() {
            respond_without_tls(stream).await?;
            return Err(io::Error::other("HTTP without TLS"));
        }
        let acceptor = TlsAcceptor::from(self.config.load_full());
        acceptor.accept(stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Sends [`NO_TLS`] and closes the connection.
async fn respond_without_tls(mut stream: TcpStream) -> io::Result<()> {
    stream.writable().await?;
    stream.try_write(NO_TLS)?;
    poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await?;
    // Closing a socket with unread data sends a reset, which discards the response.
    let mut unread = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let TlsFiles { cert, key } = files;
    let chain = chain(cert)?;
    let secret = secret(key)?;
    let refused = |cause| match cause {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
            cert: cert.clone(),
            key: key.clone(),
        },
        Error::InvalidCertificate(_) => TlsError::Certificate {
            path: cert.clone(),
            cause,
        },
        Error::General(reason) => TlsError::Key {
            path: key.clone(),
            reason,
        },
        cause => TlsError::Key {
            path: key.clone(),
            reason: cause.to_string(),
        },
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(refused)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, secret).map_err(refused)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let flag = "--tls-cert";
    let refused = |reason| TlsError::Pem {
        flag,
        path: path.to_owned(),
        reason,
        expected: "the server's certificate (-----BEGIN CERTIFICATE-----)",
    };
    let bytes = read(flag, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| refused(reason(&error)))?;
    if chain.is_empty() {
        return Err(refused(reason(&pem::Error::NoItemsFound)));
    }
    Ok(chain)
}

fn secret(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let flag = "--tls-key";
    let bytes = read(flag, path)?;
    warn_if_world_readable(path);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        // In the BEGIN line, or in a header below it.
        if bytes.windows(9).any(|text| text == b"ENCRYPTED") {
            return TlsError::Encrypted(path.to_owned());
        }
        TlsError::Pem {
            flag,
            path: path.to_owned(),
            reason: reason(&error),
            expected: "the certificate's key (-----BEGIN PRIVATE KEY-----)",
        }
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::Io {
        flag,
        path: path.to_owned(),
        cause,
    })
}

/// Describes a PEM error without repeating the file's contents, which may be secret.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "no such PEM section in the file",
        pem::Error::MissingSectionEnd { .. } => "the file ends before an END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not valid base64",
        _ => "the file is not valid PEM",
    }
}

#[cfg(unix)]
fn warn_if_world_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(
            "--tls-key {}: all users of this machine can read the file; restrict it with chmod o=",
            path.display()
        );
    }
}

#[cfg(not(unix))]
fn warn_if_world_readable(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_malformed_certificate_do_not_show_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        let files = TlsFiles {
            cert: cert.clone(),
            key,
        };
        let refused = |text: &str| {
            std::fs::write(&cert, text).unwrap();
            let error = Tls::read(files.clone()).unwrap_err().to_string();
            assert!(error.starts_with("--tls-cert ") && !error.contains("c2VjcmV0"));
            error
        };
        let one_line = "-----BEGIN CERTIFICATE-----c2VjcmV0";
        for (text, expected) in [
            ("", "no such PEM section"),
            ("\u{1}c2VjcmV0", "no such PEM section"),
            (one_line, "a BEGIN line is malformed"),
            (
                "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n",
                "ends before an END line",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nc2VjcmV0*\n-----END CERTIFICATE-----\n",
                "not valid base64",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Tls::read(TlsFiles {
            cert: "/nowhere".into(),
            ..files
        });
        assert!(matches!(error, Err(TlsError::Io { .. })));
    }

    #[test]
    fn the_response_without_tls_is_valid_http() {
        let text = str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
