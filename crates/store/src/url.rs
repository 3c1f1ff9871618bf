//! What is in an object store or on a web server, by its URL.

use std::fmt;

use super::location::LocationErrorKind;

/// How a store is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon's S3, or what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure's blobs.
    Az,
    /// A web server, in plain text.
    Http,
    /// A web server.
    Https,
}

impl Scheme {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("s3", Self::S3),
        ("gs", Self::Gs),
        ("az", Self::Az),
        ("http", Self::Http),
        ("https", Self::Https),
    ];

    /// As it stands before `://`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, scheme)| *scheme == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether it is a web server, of which nothing can be asked but files.
    #[must_use]
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// An object, or a folder of objects, in a store.
///
/// Shown and debugged without what is secret in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// Bucket or container; of a web server its name and port.
    host: String,
    /// As the store knows it: without percent-encoding, and no slash before or after it.
    key: String,
    /// `user:password` of a web server.
    user: Option<String>,
    /// What follows a `?`: the token of a signed URL.
    query: Option<String>,
}

impl Url {
    /// Reads what follows `://`.
    pub(super) fn parse(scheme: Scheme, rest: &str) -> Result<Self, LocationErrorKind> {
        // In the key of an S3 or Google object a question mark is one like any other character.
        let has_query = scheme.is_web() || scheme == Scheme::Az;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) if has_query => (rest, Some(query.to_owned())),
            _ => (rest, None),
        };
        let rest = match rest.split_once('#') {
            Some((rest, _)) if scheme.is_web() => rest,
            _ => rest,
        };
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, host),
        };
        if user.is_some() && !scheme.is_web() {
            let scheme = scheme.name();
            return Err(LocationErrorKind::User { scheme });
        }
        if host.is_empty() {
            let what = match scheme {
                Scheme::S3 | Scheme::Gs => "bucket",
                Scheme::Az => "container",
                Scheme::Http | Scheme::Https => "server",
            };
            let scheme = scheme.name();
            return Err(LocationErrorKind::NoHost { scheme, what });
        }
        let key = if scheme.is_web() {
            decoded(key)?
        } else {
            key.to_owned()
        };
        let key = key.strip_suffix('/').unwrap_or(&key);
        check_key(key)?;
        Ok(Self {
            scheme,
            host: host.to_owned(),
            key: key.to_owned(),
            user,
            query,
        })
    }

    /// How the store is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Bucket or container; of a web server its name and port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the store calls the object or folder; empty for all of the bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `user:password` of a web server: secret.
    #[cfg(feature = "remote")]
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The token of a signed URL: secret.
    #[cfg(feature = "remote")]
    pub(super) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The object `name` in this folder.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let key = if self.key.is_empty() || name.is_empty() {
            format!("{}{name}", self.key)
        } else {
            format!("{}/{name}", self.key)
        };
        Self {
            key,
            ..self.clone()
        }
    }

    /// The last part of the key.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it is in.
    #[must_use]
    pub fn parent(&self) -> Self {
        let folder = self.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self {
            key: folder.to_owned(),
            ..self.clone()
        }
    }

    /// As it is shown, with a slash at its end: how all that is in it begins.
    #[must_use]
    pub fn folder(&self) -> String {
        let shown = self.to_string();
        if shown.ends_with('/') {
            shown
        } else {
            shown + "/"
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme.name(), self.host, self.key)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decoded(text: &str) -> Result<String, LocationErrorKind> {
    String::from_utf8(decoded_bytes(text)?).map_err(|_| LocationErrorKind::Encoding)
}

/// The bytes that percent-encoding stands for.
pub(super) fn decoded_bytes(text: &str) -> Result<Vec<u8>, LocationErrorKind> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(LocationErrorKind::Encoding);
        };
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}

fn check_key(key: &str) -> Result<(), LocationErrorKind> {
    if key.chars().any(|c| c.is_ascii_control()) {
        return Err(LocationErrorKind::Control);
    }
    let mut parts = key.split('/').filter(|_| !key.is_empty());
    match parts.find(|part| ["", ".", ".."].contains(part)) {
        Some(part) => Err(LocationErrorKind::Part { part: part.into() }),
        None => Ok(()),
    }
}
