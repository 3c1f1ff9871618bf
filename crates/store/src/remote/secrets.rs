//! Taking secrets out of texts: the last guard, should a store's answer repeat what it was sent.

use std::env;

use super::super::Url;

/// Shorter ones would make holes in ordinary words.
const SHORTEST: usize = 6;

/// Texts that must not be shown.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// What is secret in a URL and in the environment.
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
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: one may hold another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// `text` with each of them replaced by `***`.
    pub(super) fn hide(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), "***");
        self.0.iter().fold(text.to_owned(), hide)
    }
}

/// Not even a debugged store shows them.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Whether a variable of this name is one of a store's that holds a secret.
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
    fn what_a_url_holds_is_hidden_wherever_it_is_repeated() {
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
    fn variables_of_stores_that_hold_secrets_are_known() {
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
