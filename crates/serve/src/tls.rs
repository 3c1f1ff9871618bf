//! TLS: a certificate and its key, read from files, and read again once they were renewed.

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

/// What is spoken over TLS; the first that the client knows as well is taken.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The answer to who speaks HTTP without TLS.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    connection: close\r\ncontent-type: application/json\r\ncontent-length: 68\r\n\r\n\
    {\"error\":\"this server speaks TLS: begin its address with https://\"}\n";

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM, the server's own certificate first, then those that lead to a known authority.
    pub cert: PathBuf,
    /// PEM, without a passphrase.
    pub key: PathBuf,
}

/// The server's end of TLS 1.2 and 1.3.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {}: cannot be read: {source}", path.display())]
    Io {
        /// Which of the two.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM, or does not hold what it should.
    #[error("{flag} {}: {reason}; it must be a PEM file with {wanted}", path.display())]
    Pem {
        /// Which of the two.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The key has a passphrase.
    #[error(
        "--tls-key {}: is encrypted, and nobody is there to give the passphrase; decrypt it: \
         openssl pkey -in FILE -out KEY",
        .0.display()
    )]
    Encrypted(PathBuf),
    /// The certificate is damaged.
    #[error("--tls-cert {}: the first certificate in it cannot be used: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Error,
    },
    /// The key is damaged, or of another kind.
    #[error(
        "--tls-key {}: cannot be used: {reason}; RSA keys of 2048 to 4096 bits, ECDSA keys on \
         P-256 or P-384 and Ed25519 keys can",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is that of another certificate.
    #[error(
        "--tls-key {}: does not belong to the first certificate in --tls-cert {}; give the \
         server's own certificate first, and the key that it was made for",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// As [`TlsError`] says.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(config(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again, for connections to come.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); then they stay what they were.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(config(&self.files)?.into());
        Ok(())
    }

    /// Shakes hands with a client. It may take as long as the client does.
    ///
    /// # Errors
    ///
    /// The client leaves, or does not speak TLS, or not as it should.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        if first[0].is_ascii_uppercase() {
            refuse(stream).await?;
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

/// Tells a client without TLS what is wanted.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.writable().await?;
    stream.try_write(NO_TLS)?;
    poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await?;
    // To close over what the client sent would take the answer away from it.
    let mut rest = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut rest) {
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
    let wrong = |source| match source {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
            cert: cert.clone(),
            key: key.clone(),
        },
        Error::InvalidCertificate(_) => TlsError::Certificate {
            path: cert.clone(),
            source,
        },
        Error::General(reason) => TlsError::Key {
            path: key.clone(),
            reason,
        },
        source => TlsError::Key {
            path: key.clone(),
            reason: source.to_string(),
        },
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(wrong)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, secret).map_err(wrong)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let flag = "--tls-cert";
    let wrong = |reason| TlsError::Pem {
        flag,
        path: path.to_owned(),
        reason,
        wanted: "the server's certificate (-----BEGIN CERTIFICATE-----)",
    };
    let bytes = read(flag, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| wrong(reason(&error)))?;
    if chain.is_empty() {
        return Err(wrong(reason(&pem::Error::NoItemsFound)));
    }
    Ok(chain)
}

fn secret(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let flag = "--tls-key";
    let bytes = read(flag, path)?;
    warn_if_open(path);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        // In the line that begins it, or as a header within it.
        if bytes.windows(9).any(|text| text == b"ENCRYPTED") {
            return TlsError::Encrypted(path.to_owned());
        }
        TlsError::Pem {
            flag,
            path: path.to_owned(),
            reason: reason(&error),
            wanted: "the certificate's key (-----BEGIN PRIVATE KEY-----)",
        }
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Io {
        flag,
        path: path.to_owned(),
        source,
    })
}

/// What is wrong with a file, without a word of what is in it.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "there is none in it",
        pem::Error::MissingSectionEnd { .. } => "it breaks off before an END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line in it is damaged",
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        _ => "it cannot be read as PEM",
    }
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(
            "--tls-key {}: everybody on this machine can read it; chmod o= takes that away",
            path.display()
        );
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told_without_showing_it() {
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
        for (text, wanted) in [
            ("", "there is none in it"),
            ("\u{1}c2VjcmV0", "there is none in it"),
            (one_line, "a BEGIN line in it is damaged"),
            ("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n", "breaks off"),
            (
                "-----BEGIN CERTIFICATE-----\nc2VjcmV0*\n-----END CERTIFICATE-----\n",
                "is not base64",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let error = Tls::read(TlsFiles {
            cert: "/nowhere".into(),
            ..files
        });
        assert!(matches!(error, Err(TlsError::Io { .. })));
    }

    #[test]
    fn the_answer_without_tls_is_whole() {
        let text = str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
