//! Feature files: outputs of the frozen backbone for each sample, computed once.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::packed::{Packed, PackedError, PackedFault, write_packed};

/// Magic bytes of a feature file.
const KIND: [u8; 8] = *b"rgbyfea1";

/// Which features a file contains, and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureForm {
    /// Hash of everything that the features depend on.
    pub key: String,
    /// Number of values per record.
    pub len: usize,
    /// Training samples. The records are ordered by symmetry, then by sample.
    pub training: Vec<usize>,
    /// Number of symmetries of the square per training sample: 1 or all 8.
    #[serde(rename = "views")]
    pub symmetries: usize,
    /// Validation samples, without symmetries. Their records come last.
    pub validation: Vec<usize>,
}

impl FeatureForm {
    #[must_use]
    pub fn count(&self) -> usize {
        self.training.len() * self.symmetries + self.validation.len()
    }

    /// Returns each symmetry with its samples, in the order of the records.
    pub fn groups(&self) -> impl Iterator<Item = (u8, &[usize])> {
        let training =
            (0..self.symmetries as u8).map(|symmetry| (symmetry, self.training.as_slice()));
        training.chain([(0, self.validation.as_slice())])
    }
}

/// An open feature file, readable from any number of threads.
#[derive(Debug)]
pub struct Features {
    packed: Packed<FeatureForm>,
    /// For each sample of the data set: first record, and distance between symmetries.
    records: Vec<Option<(usize, usize)>>,
}

impl Features {
    /// Writes the records that `content` passes to its argument in the order of `form`, each of
    /// `form.len` values.
    ///
    /// # Errors
    ///
    /// The error of `content` or of the file system. No file is left then.
    pub fn write(
        path: &Path,
        form: &FeatureForm,
        content: impl FnOnce(&mut dyn FnMut(&[f32]) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        write_packed(path, KIND, form.len * size_of::<f32>(), |push| {
            content(&mut |record| {
                let bytes: Vec<u8> = record
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                push(&bytes)
            })?;
            Ok(form.clone())
        })
    }

    /// Opens the file with the given `form`; `samples` is the size of the data set.
    ///
    /// # Errors
    ///
    /// The file is missing, damaged, or has another form.
    pub fn open(path: &Path, form: &FeatureForm, samples: usize) -> Result<Self, PackedError> {
        let packed = Packed::<FeatureForm>::open(path, KIND)?;
        if packed.about() != form || packed.len() != form.count() {
            return Err(PackedError {
                path: path.into(),
                fault: PackedFault::Kind,
            });
        }
        let mut records = vec![None; samples];
        let stride = form.training.len();
        for (record, sample) in form.training.iter().enumerate() {
            records[*sample] = Some((record, stride));
        }
        for (record, sample) in form.validation.iter().enumerate() {
            records[*sample] = Some((stride * form.symmetries + record, 0));
        }
        Ok(Self { packed, records })
    }

    #[must_use]
    pub fn form(&self) -> &FeatureForm {
        self.packed.about()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.packed.path()
    }

    /// Reads the features of a sample under a symmetry into `out`, of `form().len` values.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the hash of the record differs.
    ///
    /// # Panics
    ///
    /// If the sample has no features, or `out` has another length.
    pub(super) fn read(
        &self,
        sample: usize,
        symmetry: u8,
        out: &mut [f32],
    ) -> Result<(), PackedError> {
        let (first, stride) = self.records[sample].expect("the form lists every sample of a run");
        let bytes = self.packed.read(first + usize::from(symmetry) * stride)?;
        assert_eq!(bytes.len(), size_of_val(out), "out is a record");
        for (value, word) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*word);
        }
        Ok(())
    }
}
