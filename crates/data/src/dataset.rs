//! Samples with their classes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Images, ImagesError, LabelError, read_labels};
use rgby_imaging::{ChannelSelector, Sample};

/// A labelled data set: the samples of a labels file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Samples with a file for each stain.
    pub samples: Vec<Sample>,
    /// Classes of each sample, ascending and unique.
    pub targets: Vec<Vec<u16>>,
    /// Number of classes; every target is lower.
    pub num_classes: usize,
}

/// Why a data set cannot be opened.
#[derive(Debug, Error)]
pub enum DataError {
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Labelled samples lack some or all files.
    #[error(
        "{count} of {total} samples in {} lack images in {}: {examples}\nhint: add the images or \
         remove the lines from the labels file",
        labels.display(), images.display()
    )]
    MissingImages {
        /// Number of samples with missing files.
        count: usize,
        /// Number of samples in the labels file.
        total: usize,
        labels: PathBuf,
        /// Image folder or manifest.
        images: PathBuf,
        /// The first five with their missing channels.
        examples: String,
    },
}

impl Dataset {
    /// Joins a labels file and images. Images without a label are ignored.
    ///
    /// # Errors
    ///
    /// [`DataError`] if either is invalid, or if labelled samples lack files of a required stain.
    /// One error covers all such samples.
    pub fn open(
        images: &Images,
        labels: &Path,
        stains: &[String],
        num_classes: usize,
    ) -> Result<Self, DataError> {
        let table = read_labels(labels, num_classes)?;
        let mut found: HashMap<_, _> = images
            .find(stains)?
            .into_iter()
            .map(|s| (s.id.clone(), s))
            .collect();
        let total = table.ids.len();
        let mut samples = Vec::with_capacity(total);
        let mut missing = Vec::new();
        for id in table.ids {
            match found.remove(&id) {
                Some(sample) if sample.is_complete() => samples.push(sample),
                Some(sample) => {
                    let channels: Vec<_> = sample.missing_channels().collect();
                    missing.push(format!("`{id}` ({})", channels.join(", ")));
                }
                None => missing.push(format!("`{id}` (all)")),
            }
        }
        if !missing.is_empty() {
            let count = missing.len();
            missing.truncate(5);
            return Err(DataError::MissingImages {
                count,
                total,
                labels: labels.into(),
                images: images.path.clone(),
                examples: missing.join(", ") + if count > 5 { ", …" } else { "" },
            });
        }
        Ok(Self {
            samples,
            targets: table.targets,
            num_classes,
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns the SHA-256 over ids, classes and channel selectors in order, as 64 hexadecimal
    /// digits. Two data sets are equal by it exactly if each index is the same sample in both. It
    /// does not cover the pixels.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update((self.num_classes as u64).to_le_bytes());
        for (sample, classes) in self.samples.iter().zip(&self.targets) {
            // Lengths are hashed too, so that different data sets never give the same bytes.
            hasher.update((sample.id.len() as u64).to_le_bytes());
            hasher.update(sample.id.as_bytes());
            hasher.update((classes.len() as u64).to_le_bytes());
            for class in classes {
                hasher.update(class.to_le_bytes());
            }
            for pick in sample.picks.iter() {
                let ChannelSelector::Channel(channel) = pick else {
                    continue;
                };
                hasher.update((channel.len() as u64).to_le_bytes());
                hasher.update(channel.as_bytes());
            }
        }
        hex::encode(hasher.finalize())
    }

    /// Returns the classes of sample `index` as `[num_classes]` zeros and ones.
    ///
    /// # Panics
    ///
    /// If there is no such sample.
    #[must_use]
    pub fn target_row(&self, index: usize) -> Vec<f32> {
        let mut row = vec![0.0; self.num_classes];
        for &class in &self.targets[index] {
            row[usize::from(class)] = 1.0;
        }
        row
    }

    /// Returns the number of samples of each class, `[num_classes]`.
    #[must_use]
    pub fn class_counts(&self) -> Vec<usize> {
        let all: Vec<usize> = (0..self.len()).collect();
        self.class_counts_of(&all)
    }

    /// Returns the number of samples of each class among `indices`, `[num_classes]`.
    ///
    /// # Panics
    ///
    /// If there is no such sample.
    #[must_use]
    pub fn class_counts_of(&self, indices: &[usize]) -> Vec<usize> {
        let mut counts = vec![0; self.num_classes];
        for &class in indices.iter().flat_map(|&index| &self.targets[index]) {
            counts[usize::from(class)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use rgby_imaging::CHANNELS;

    fn channels() -> Vec<String> {
        CHANNELS.map(String::from).to_vec()
    }

    fn folder(ids: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for id in ids {
            for channel in CHANNELS {
                fs::write(dir.path().join(format!("{id}_{channel}.png")), "").unwrap();
            }
        }
        dir
    }

    fn open(dir: &Path, labels: &str) -> Result<Dataset, DataError> {
        let csv = dir.join("labels.csv");
        fs::write(&csv, labels).unwrap();
        Dataset::open(&Images::plain(dir), &csv, &channels(), 4)
    }

    #[test]
    fn labels_file_determines_samples_and_order() {
        let dir = folder(&["a", "b", "unlabelled"]);
        let data = open(dir.path(), "Id,Target\nb,1 3\na,\n").unwrap();
        let ids: Vec<_> = data.samples.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
        assert_eq!(data.target_row(0), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(data.target_row(1), [0.0; 4]);
        assert_eq!(data.class_counts(), [0, 1, 0, 1]);
        assert_eq!((data.len(), data.is_empty()), (2, false));
    }

    #[test]
    fn missing_images_error_has_the_count_and_five_examples() {
        let dir = folder(&["a"]);
        fs::remove_file(dir.path().join("a_blue.png")).unwrap();
        let message = open(dir.path(), "Id,Target\nz,0\na,1\n")
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("2 of 2 samples"), "{message}");
        assert!(message.contains("`z` (all), `a` (blue)\nhint"), "{message}");
        let many = (0..9)
            .map(|i| format!("\nid{i},0"))
            .collect::<Vec<_>>()
            .concat();
        let message = open(dir.path(), &format!("Id,Target{many}\n"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`id4` (all), …") && !message.contains("id5"),
            "{message}"
        );
    }

    #[test]
    fn fingerprint_depends_on_ids_order_and_classes() {
        let dir = folder(&["a", "b"]);
        let fingerprint = |labels| open(dir.path(), labels).unwrap().fingerprint();
        let base = fingerprint("Id,Target\na,0 1\nb,2\n");
        assert_eq!(base.len(), 64);
        assert_eq!(base, fingerprint("Target,Id\n1 0,a\n2,b\n"));
        for other in [
            "Id,Target\nb,2\na,0 1\n",
            "Id,Target\na,0\nb,2\n",
            "Id,Target\na,0 1\n",
        ] {
            assert_ne!(base, fingerprint(other));
        }
    }
}
