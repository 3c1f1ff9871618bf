//! Removes secrets from texts: the last line of defence, for responses that repeat the request.

use std::env;

use super::super::Url;

/// Shorter texts occur in ordinary words.
const MIN_LENGTH: usize = 6;

/// Texts that must not appear in messages.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Collects the secrets of a URL and of the environment.
    pub(super) fn of(url: &Url) -> Self {
        let of_url = [url.user(), url.query()].into_iter().flatten();
        let mut secrets: Vec<String> = of_url
            .flat_map(|text| text.split([':', '&', '=']))
            .map(str::to_owned)
            .collect();
        secrets.extend(env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            is_secret(name).then(|| value.to_owned())
        }));
        secrets.retain(|secret| secret.len() >= MIN_LENGTH);
        // The longest first: one may contain another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// Replaces each secret in `text` by `***`.
    pub(super) fn hide(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), "***");
        self.0.iter().fold(text.to_owned(), hide)
    }
}

/// Hides the secrets.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Whether an environment variable of this name holds a secret of a store.
fn is_secret(name: &str) -> bool {
    let of_store = ["AWS_", "AZURE_", "GOOGLE_"]
        .iter()
        .any(|p| name.starts_with(p));
    let secret = ["KEY", "SECRET", "TOKEN", "PASSWORD", "SAS"];
    of_store && secret.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::Location;

    #[test]
    fn hides_secrets_of_a_url() {
        let text = "https://somebody:hunter22@host/a?X-Amz-Signature=abcdef123&x=y";
        let Ok(Location::Remote(url)) = Location::parse(OsStr::new(text)) else {
            panic!("{text}");
        };
        let secrets = Secrets::of(&url);
        let hidden = secrets.hide(&format!("no {text} but hunter22 and abcdef123"));
        assert!(
            !hidden.contains("hunter22") && !hidden.contains("abcdef123"),
            "{hidden}"
        );
        assert!(
            hidden.starts_with("no https://") && hidden.contains("@host/a?"),
            "{hidden}"
        );
        assert_eq!(format!("{secrets:?}"), "***");
    }

    #[test]
    fn recognizes_secret_variables() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AZURE_STORAGE_SAS_TOKEN",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["AWS_REGION", "GOOGLE_BASE_URL", "HOME", "API_TOKEN"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
