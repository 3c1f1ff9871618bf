//! Identity of a run, so that results of different runs are never mixed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{KeyDifference, RecordedOptions, Shard};

/// Everything that the results of a run depend on. A run is resumed only if its key is unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunKey {
    /// SHA-256 of each model file.
    pub models: Vec<String>,
    /// Engine, device kind and version of rgby.
    pub engine: String,
    pub options: RecordedOptions,
    /// [`hash_of_ids`] of the samples of all shards, in order.
    pub samples: String,
    /// Number of samples of all shards.
    pub listed: usize,
    /// The shard that is scored; `None` for all samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Number of samples that are scored.
    pub count: usize,
}

impl RunKey {
    /// Returns the differences that change results, samples and shard excluded.
    #[must_use]
    pub fn result_differences(&self, other: &Self) -> Vec<KeyDifference> {
        let mut found = Vec::new();
        if self.models != other.models {
            found.push(difference(
                "model",
                short_hashes(&self.models),
                short_hashes(&other.models),
            ));
        }
        if self.engine != other.engine {
            found.push(difference(
                "engine",
                self.engine.clone(),
                other.engine.clone(),
            ));
        }
        found.extend(self.options.differences(&other.options));
        found
    }

    /// Returns everything that makes this another run than `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<KeyDifference> {
        let mut found = self.result_differences(other);
        // Another model may need other images, so that its samples are not comparable.
        if self.models != other.models {
            return found;
        }
        if self.shard != other.shard {
            let shard = |key: &Self| key.shard.map_or("none".to_owned(), |s| s.to_string());
            found.push(difference("--shard", shard(self), shard(other)));
        }
        let same_count = self.shard != other.shard || self.count == other.count;
        if self.samples != other.samples || self.listed != other.listed || !same_count {
            let samples = |key: &Self| {
                let hash: String = key.samples.chars().take(SHORT_HASH).collect();
                format!("{} with ids of hash {hash}", key.listed)
            };
            found.push(difference(
                "samples (images or --ids)",
                samples(self),
                samples(other),
            ));
        }
        found
    }
}

/// Digits of a hash that messages show.
const SHORT_HASH: usize = 8;

fn difference(key: &str, left: String, right: String) -> KeyDifference {
    KeyDifference {
        key: key.to_owned(),
        left,
        right,
    }
}

fn short_hashes(hashes: &[String]) -> String {
    let short = |hash: &String| hash.chars().take(SHORT_HASH).collect();
    let hashes: Vec<String> = hashes.iter().map(short).collect();
    format!("SHA-256 {}", hashes.join(" + "))
}

/// Returns the SHA-256 over the length of each id, as eight little-endian bytes, and the id.
#[must_use]
pub fn hash_of_ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update((id.len() as u64).to_le_bytes());
        hash.update(id);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RunKey {
        RunKey {
            models: vec!["a".into()],
            engine: "tract".into(),
            options: RecordedOptions::Text("batch 8".into()),
            samples: hash_of_ids(["a", "b"]),
            listed: 2,
            shard: Some("0/2".parse().unwrap()),
            count: 1,
        }
    }

    #[test]
    fn each_difference_is_named() {
        let key = key();
        assert_eq!(key.differences(&key.clone()), []);
        let change = |change: &dyn Fn(&mut RunKey)| {
            let mut other = key.clone();
            change(&mut other);
            let names = |found: Vec<KeyDifference>| -> Vec<String> {
                found.into_iter().map(|difference| difference.key).collect()
            };
            assert_eq!(
                names(key.differences(&other)),
                names(other.differences(&key))
            );
            (
                names(key.differences(&other)),
                names(key.result_differences(&other)),
            )
        };
        let [model, engine, options] = [
            change(&|key| key.models.push("b".into())),
            change(&|key| key.engine += "!"),
            change(&|key| key.options = RecordedOptions::Text("batch 9".into())),
        ];
        for (found, name) in [(model, "model"), (engine, "engine"), (options, "options")] {
            assert_eq!(found, (vec![name.into()], vec![name.into()]));
        }
        for samples in [
            change(&|key| key.samples = hash_of_ids(["ab", ""])),
            change(&|key| key.listed = 3),
            change(&|key| key.count = 0),
        ] {
            assert_eq!(
                samples,
                (vec!["samples (images or --ids)".into()], Vec::new())
            );
        }
        for shard in [None, "1/2".parse().ok(), "0/3".parse().ok()] {
            let found = change(&|key| key.shard = shard);
            assert_eq!(found, (vec!["--shard".into()], Vec::new()));
        }
    }

    #[test]
    fn keys_of_older_versions_are_read() {
        let old = r#"{"models":["a"],"engine":"tract","options":"batch 8","samples":"SAMPLES",
            "listed":2,"shard":"0/2","count":1}"#;
        let old = old.replace("SAMPLES", &hash_of_ids(["a", "b"]));
        assert_eq!(serde_json::from_str::<RunKey>(&old).unwrap(), key());
    }
}
