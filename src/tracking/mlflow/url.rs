//! Address and credentials of an MLflow server.

use std::env;
use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The address of a tracking server. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct MlflowUrl {
    /// URL without credentials, query and trailing slash.
    base: String,
    /// User name and password from the URL.
    user: Option<(String, String)>,
}

impl FromStr for MlflowUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "name the tracking server, for example http://127.0.0.1:5000";
        let mut url: Url = text
            .parse()
            .map_err(|error| format!("{error}; {example}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(format!("`{scheme}` is neither http nor https; {example}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("the URL contains `?` or `#`; {example}"));
        }
        let plain = |text: &str| -> Result<String, String> {
            let bytes = percent_decoded(text);
            String::from_utf8(bytes).map_err(|_| "its user name or password is not UTF-8".into())
        };
        let user = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((plain(user)?, plain(password.unwrap_or_default())?)),
        };
        // Fails only for URLs without a host, which http URLs always have.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            user,
        })
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|digits| {
            // `from_str_radix` would accept a sign.
            bytes[at] == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    decoded
}

impl fmt::Display for MlflowUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for MlflowUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlflowUrl({})", self.base)
    }
}

/// Credentials for a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) enum Credentials {
    #[default]
    None,
    User(String, String),
    Token(String),
}

impl Credentials {
    /// Returns the credentials of the URL, or else of the environment variables that MLflow's own
    /// client reads, in the same order.
    pub(super) fn of(url: &MlflowUrl) -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let [user, password, token] =
            ["USERNAME", "PASSWORD", "TOKEN"].map(|name| set(&format!("MLFLOW_TRACKING_{name}")));
        match (url.user.clone().or(user.zip(password)), token) {
            (Some((user, password)), _) => Self::User(user, password),
            (None, Some(token)) => Self::Token(token),
            (None, None) => Self::None,
        }
    }

    /// Removes the secret from `text`, in case a response repeats it.
    pub(super) fn hide(&self, text: &str) -> String {
        match self {
            Self::User(_, secret) | Self::Token(secret) if secret.len() >= 6 => {
                text.replace(secret.as_str(), "***")
            }
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_http_urls_only() {
        for (text, base) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("https://lab.example/mlflow/", "https://lab.example/mlflow"),
        ] {
            assert_eq!(text.parse::<MlflowUrl>().unwrap().to_string(), base);
        }
        for (text, expected) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("localhost:5000", "`localhost` is neither"),
            ("./mlruns", "name the tracking server"),
            ("sqlite:///mlflow.db", "`sqlite` is neither"),
            ("http://host:5000/#/experiments/1", "contains `?` or `#`"),
            ("http://", "host"),
        ] {
            let error = text.parse::<MlflowUrl>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn passwords_are_used_and_not_shown() {
        let url: MlflowUrl = "https://ann:s%C3%A9cret%21@host/".parse().unwrap();
        assert_eq!(url.to_string(), "https://host");
        assert!(!format!("{url:?}").contains("cret"));
        let credentials = Credentials::of(&url);
        assert!(credentials == Credentials::User("ann".into(), "sécret!".into()));
        assert_eq!(credentials.hide("no sécret! here"), "no *** here");
        // What is not percent-encoded stays as it is.
        let url: MlflowUrl = "https://ann:100%+1%zz@host/".parse().unwrap();
        let plain = Credentials::User("ann".into(), "100%+1%zz".into());
        assert!(Credentials::of(&url) == plain);
    }
}
