//! The options of a run that its probabilities and embeddings depend on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{EngineConfig, TtaCombination};
use crate::model_metadata::ModelSpec;
use rgby_data::{Layout, Pattern};

/// Options that change probabilities or embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOptions {
    pub batch: usize,
    /// How the probabilities of augmented images are combined; `None` without test-time
    /// augmentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tta: Option<TtaCombination>,
    /// Whether embeddings are stored too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub embeddings: bool,
    /// Description of a model without metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<ModelSpec>,
    /// Options of ONNX Runtime, unless they are the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_config: Option<EngineConfig>,
    /// Regular expression for file names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Channel of each stain whose channel has another name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, String>,
}

/// The options as a manifest stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedOptions {
    Typed(Box<RunOptions>),
    /// The text that older versions of rgby wrote. It can only be compared as a whole.
    Text(String),
}

/// An option or input that differs between two runs, with both values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDifference {
    /// The flag, such as `--batch`.
    pub key: String,
    pub left: String,
    pub right: String,
}

impl KeyDifference {
    /// Describes differences, such as `--batch: 8 in the unfinished run, 16 now`.
    #[must_use]
    pub fn describe(differences: &[Self], left: &str, right: &str) -> String {
        let lines = differences.iter();
        let lines: Vec<String> = lines
            .map(|d| format!("{}: {} {left}, {} {right}", d.key, d.left, d.right))
            .collect();
        lines.join("; ")
    }
}

impl From<RunOptions> for RecordedOptions {
    fn from(options: RunOptions) -> Self {
        Self::Typed(Box::new(options))
    }
}

impl RecordedOptions {
    /// Returns each option that differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<KeyDifference> {
        match (self, other) {
            (Self::Typed(left), Self::Typed(right)) => differences(&left.values(), &right.values()),
            _ if self.text() == other.text() => Vec::new(),
            _ => vec![KeyDifference {
                key: "options".into(),
                left: format!("`{}`", self.text()),
                right: format!("`{}`", other.text()),
            }],
        }
    }

    /// Returns the text that older versions of rgby wrote.
    fn text(&self) -> String {
        match self {
            Self::Typed(options) => options.text(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl RunOptions {
    /// Returns the text that older versions of rgby stored for these options.
    fn text(&self) -> String {
        let mut text = format!("batch {}", self.batch);
        if let Some(combine) = self.tta {
            text += &format!(", tta 8 {combine}");
        }
        if self.embeddings {
            text += ", embeddings";
        }
        if let Some(spec) = &self.spec {
            text += &format!(", {}", json!(spec));
        }
        if let Some(config) = &self.engine_config {
            text += &format!(", {}", json!(config));
        }
        let pattern: Option<Pattern> = self.pattern.as_ref().and_then(|text| text.parse().ok());
        let layout = Layout {
            pattern,
            channels: self.channels.clone(),
        };
        text + &layout.to_string()
    }

    /// Returns the value of each option, by its flag.
    fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let mut set = |key: &str, value: String| {
            values.insert(key.to_owned(), value);
        };
        set("--batch", self.batch.to_string());
        set("--tta", if self.tta.is_some() { "8" } else { "1" }.into());
        if let Some(combine) = self.tta {
            set("--tta-combine", combine.to_string());
        }
        set(
            "--embeddings",
            if self.embeddings { "yes" } else { "no" }.into(),
        );
        if let Some(pattern) = &self.pattern {
            set("--pattern", format!("`{pattern}`"));
        }
        for (stain, channel) in &self.channels {
            set(&format!("--channel {stain}"), channel.clone());
        }
        if let Some(spec) = &self.spec {
            flatten("--spec", &json!(spec), &mut values);
        }
        let config = self.engine_config.clone().unwrap_or_default();
        flatten("--engine-config", &json!(config), &mut values);
        values
    }
}

/// Adds one entry per leaf of `value`, under the dotted path below `key`. Arrays are leaves.
fn flatten(key: &str, value: &Value, values: &mut BTreeMap<String, String>) {
    let Value::Object(fields) = value else {
        values.insert(key.to_owned(), shown(value));
        return;
    };
    for (name, value) in fields {
        let separator = if key.contains(' ') { '.' } else { ' ' };
        flatten(&format!("{key}{separator}{name}"), value, values);
    }
}

fn shown(value: &Value) -> String {
    match value {
        // All fractions are stored as float32.
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .map_or_else(String::new, |n| (n as f32).to_string()),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Compares two sets of values; a value that is missing from one of them is `none`.
pub(super) fn differences(
    left: &BTreeMap<String, String>,
    right: &BTreeMap<String, String>,
) -> Vec<KeyDifference> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let value = |values: &BTreeMap<String, String>, key: &str| {
        values.get(key).map_or("none", String::as_str).to_owned()
    };
    keys.into_iter()
        .filter(|key| left.get(*key) != right.get(*key))
        .map(|key| KeyDifference {
            key: key.clone(),
            left: value(left, key),
            right: value(right, key),
        })
        .collect()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use rgby_imaging::Preprocess;

    fn plain(batch: usize) -> RunOptions {
        RunOptions {
            batch,
            tta: None,
            embeddings: false,
            spec: None,
            engine_config: None,
            pattern: None,
            channels: BTreeMap::new(),
        }
    }

    fn full() -> RunOptions {
        let preprocess = Preprocess::new(&["red"], 8);
        RunOptions {
            tta: Some(TtaCombination::Max),
            embeddings: true,
            spec: Some(ModelSpec::new("unknown", vec!["a".into()], preprocess)),
            engine_config: Some(EngineConfig::default()),
            pattern: Some("(?<well>[A-P]\\d\\d)_w(?<channel>\\d)\\.tif".into()),
            channels: [("red".to_owned(), "1".to_owned())].into(),
            ..plain(4)
        }
    }

    fn describe(left: &RunOptions, right: &RunOptions) -> String {
        let [left, right] = [left, right].map(|o| RecordedOptions::from(o.clone()));
        KeyDifference::describe(&left.differences(&right), "in the unfinished run", "now")
    }

    #[test]
    fn names_each_differing_option_with_both_values() {
        assert_eq!(describe(&full(), &full()), "");
        assert_eq!(
            describe(&plain(8), &plain(16)),
            "--batch: 8 in the unfinished run, 16 now"
        );
        let mut config = EngineConfig::default();
        config.session.spinning = true;
        let changed = RunOptions {
            tta: Some(TtaCombination::Mean),
            engine_config: Some(config),
            ..plain(8)
        };
        assert_eq!(
            describe(&plain(8), &changed),
            "--engine-config session.spinning: false in the unfinished run, true now; \
             --tta: 1 in the unfinished run, 8 now; \
             --tta-combine: none in the unfinished run, mean now"
        );
        let mut other = full();
        other.spec.as_mut().unwrap().thresholds = vec![0.3];
        other.channels.insert("red".into(), "2".into());
        assert_eq!(
            describe(&full(), &other),
            "--channel red: 1 in the unfinished run, 2 now; \
             --spec thresholds: [0.5] in the unfinished run, [0.3] now"
        );
    }

    #[test]
    fn options_are_read_back_as_they_were_written() {
        for options in [plain(8), full()] {
            let recorded = RecordedOptions::from(options);
            let text = serde_json::to_string(&recorded).unwrap();
            assert_eq!(
                serde_json::from_str::<RecordedOptions>(&text).unwrap(),
                recorded
            );
        }
        let unknown = r#"{"batch":8,"colour":"blue"}"#;
        assert!(serde_json::from_str::<RecordedOptions>(unknown).is_err());
    }

    #[test]
    fn the_text_of_older_versions_is_compared_as_a_whole() {
        let old = |text: &str| RecordedOptions::Text(text.into());
        let tta = RunOptions {
            tta: Some(TtaCombination::Mean),
            ..plain(8)
        };
        assert!(old("batch 8").differences(&plain(8).into()).is_empty());
        let same = RecordedOptions::from(tta.clone());
        assert!(old("batch 8, tta 8 mean").differences(&same).is_empty());
        let text = RecordedOptions::from(full()).text();
        assert!(text.starts_with("batch 4, tta 8 max, embeddings, {\"arch\":\"unknown\""));
        assert!(text.ends_with(", channel \"red\"=\"1\""), "{text}");
        assert!(old(&text).differences(&full().into()).is_empty());
        let different = old("batch 8").differences(&tta.into());
        assert_eq!(
            KeyDifference::describe(&different, "then", "now"),
            "options: `batch 8` then, `batch 8, tta 8 mean` now"
        );
    }
}
