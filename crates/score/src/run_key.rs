//! What results depend on, so that those of different runs are never mixed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Shard;

/// Everything that the results depend on: parts of another run are not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunKey {
    /// SHA-256 of each model file.
    pub models: Vec<String>,
    /// What ran them, and where.
    pub engine: String,
    /// Everything else that changes a probability: views, batch.
    pub options: String,
    /// [`hash_of_ids`] of the samples in their order, those of other shards too.
    pub samples: String,
    /// Number of samples, those of other shards too.
    pub listed: usize,
    /// Which of them are scored; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Number of samples that are scored.
    pub count: usize,
}

impl RunKey {
    /// What makes the results of `other` differ, apart from which samples they are of.
    #[must_use]
    pub fn other_results(&self, other: &Self) -> Option<&'static str> {
        if self.models != other.models {
            Some("another model or ensemble")
        } else if self.engine != other.engine {
            Some("another engine, device or version of rgby")
        } else if self.options != other.options {
            Some("another --batch, --tta, --tta-combine, --embeddings or --engine-config")
        } else {
            None
        }
    }

    /// What makes this another run than `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.models == other.models && self.shard != other.shard {
            return Some("another --shard");
        }
        let samples = |key: &Self| (key.samples.clone(), key.listed, key.count);
        if self.models == other.models && samples(self) != samples(other) {
            return Some("other samples (images were added or removed, or --ids differs)");
        }
        self.other_results(other)
    }
}

/// SHA-256 over each id's length, as eight bytes, the least significant first, and the id.
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

    #[test]
    fn every_difference_is_told() {
        let key = RunKey {
            models: vec!["a".into()],
            engine: "tract".into(),
            options: "batch 8".into(),
            samples: hash_of_ids(["a", "b"]),
            listed: 2,
            shard: Some("0/2".parse().unwrap()),
            count: 1,
        };
        assert_eq!(key.difference(&key.clone()), None);
        let change = |change: &dyn Fn(&mut RunKey)| {
            let mut other = key.clone();
            change(&mut other);
            assert_eq!(key.difference(&other), other.difference(&key));
            (key.difference(&other).unwrap(), key.other_results(&other))
        };
        let all = change(&|key| key.models.push("b".into()));
        assert_eq!((Some(all.0), all.0), (all.1, "another model or ensemble"));
        let all = change(&|key| key.engine += "!");
        assert!(Some(all.0) == all.1 && all.0.contains("engine"));
        let all = change(&|key| key.options += "!");
        assert!(Some(all.0) == all.1 && all.0.contains("--batch"));
        let samples = [
            change(&|key| key.samples = hash_of_ids(["ab", ""])),
            change(&|key| key.listed = 3),
            change(&|key| key.count = 0),
        ];
        assert!(
            samples
                .iter()
                .all(|s| s.0.contains("other samples") && s.1.is_none())
        );
        for shard in [None, "1/2".parse().ok(), "0/3".parse().ok()] {
            assert_eq!(change(&|key| key.shard = shard), ("another --shard", None));
        }
    }
}
