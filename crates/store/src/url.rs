//! URLs of objects and folders in object stores and on web servers.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::location_error::LocationErrorKind;

/// Protocol of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3 and compatible stores.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A web server without TLS.
    Http,
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

    /// Returns the text before `://`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, scheme)| *scheme == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether this is a web server, which can only be read.
    #[must_use]
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// An object, or a folder of objects, in a store.
///
/// `Display` and `Debug` omit secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// Bucket or container, or name and port of a web server.
    host: String,
    /// Key in the store, without percent-encoding and without leading or trailing slash.
    key: String,
    /// `user:password` of a web server.
    user: Option<String>,
    /// Text after `?`: the token of a signed URL.
    query: Option<String>,
}

impl Url {
    /// Parses the text after `://`.
    pub(super) fn parse(scheme: Scheme, rest: &str) -> Result<Self, LocationErrorKind> {
        // Keys in S3 and Google Cloud Storage may contain question marks.
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
            decode_utf8(key)?
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

    /// Returns the protocol.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the bucket or container, or name and port of a web server.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the key of the object or folder; empty for the whole bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the secret `user:password` of a web server.
    #[cfg(feature = "remote")]
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the secret token of a signed URL.
    #[cfg(feature = "remote")]
    pub(super) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Returns the object `name` in this folder.
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

    /// Returns the last part of the key.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the folder that contains the object.
    #[must_use]
    pub fn parent(&self) -> Self {
        let folder = self.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self {
            key: folder.to_owned(),
            ..self.clone()
        }
    }

    /// Returns the URL with a trailing slash: the prefix of all its objects.
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

fn decode_utf8(text: &str) -> Result<String, LocationErrorKind> {
    String::from_utf8(percent_decode(text)?).map_err(|_| LocationErrorKind::Encoding)
}

/// Decodes percent-encoded text; a `%` without two hexadecimal digits is an error.
pub(super) fn percent_decode(text: &str) -> Result<Vec<u8>, LocationErrorKind> {
    let is_encoded = |rest: &str| {
        let digits = rest.bytes().take(2);
        digits.filter(u8::is_ascii_hexdigit).count() == 2
    };
    if text.split('%').skip(1).all(is_encoded) {
        Ok(percent_decode_str(text).collect())
    } else {
        Err(LocationErrorKind::Encoding)
    }
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
