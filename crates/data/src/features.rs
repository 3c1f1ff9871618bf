//! What the part of a network that does not train makes of each sample, computed once.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::packed::{Packed, PackedError, PackedFault, write_packed};

/// First bytes of a file of features.
const KIND: [u8; 8] = *b"rgbyfea1";

/// Which features a file holds and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureForm {
    /// Hash of everything that they depend on.
    pub key: String,
    /// Values of a record.
    pub len: usize,
    /// Samples that are shown in each of [`views`](Self::views): records come view by view.
    pub training: Vec<usize>,
    /// Symmetries of the square in which the training samples are shown: 1 or all 8.
    pub views: usize,
    /// Samples that are shown as they are; their records come last.
    pub validation: Vec<usize>,
}

impl FeatureForm {
    /// Number of records.
    #[must_use]
    pub fn count(&self) -> usize {
        self.training.len() * self.views + self.validation.len()
    }

    /// The samples of each view, in the order of the records.
    pub fn groups(&self) -> impl Iterator<Item = (u8, &[usize])> {
        let training = (0..self.views as u8).map(|view| (view, self.training.as_slice()));
        training.chain([(0, self.validation.as_slice())])
    }
}

/// Features of a data set's samples, open for reading by any number of threads.
#[derive(Debug)]
pub struct Features {
    packed: Packed<FeatureForm>,
    /// For each sample of the data set its first record and the distance from view to view.
    places: Vec<Option<(usize, usize)>>,
}

impl Features {
    /// Writes the records that `content` hands over in the order of `form`, each of `form.len`
    /// values.
    ///
    /// # Errors
    ///
    /// `content`'s, or the file system's; then there is no file.
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

    /// Opens the file of `form`; `samples` is the size of the data set.
    ///
    /// # Errors
    ///
    /// The file is missing, holds something else, or is not whole.
    pub fn open(path: &Path, form: &FeatureForm, samples: usize) -> Result<Self, PackedError> {
        let packed = Packed::<FeatureForm>::open(path, KIND)?;
        if packed.about() != form || packed.len() != form.count() {
            return Err(PackedError {
                path: path.into(),
                fault: PackedFault::Kind,
            });
        }
        let mut places = vec![None; samples];
        let stride = form.training.len();
        for (at, sample) in form.training.iter().enumerate() {
            places[*sample] = Some((at, stride));
        }
        for (at, sample) in form.validation.iter().enumerate() {
            places[*sample] = Some((stride * form.views + at, 0));
        }
        Ok(Self { packed, places })
    }

    /// Which features they are.
    #[must_use]
    pub fn form(&self) -> &FeatureForm {
        self.packed.about()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.packed.path()
    }

    /// Reads the features of a sample in a view into `out`, of `form().len` values.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the record is not as it was written.
    ///
    /// # Panics
    ///
    /// If the sample has no features, or `out` has another length.
    pub(super) fn read(&self, sample: usize, view: u8, out: &mut [f32]) -> Result<(), PackedError> {
        let (first, stride) = self.places[sample].expect("the form names every sample of a run");
        let bytes = self.packed.read(first + usize::from(view) * stride)?;
        assert_eq!(bytes.len(), size_of_val(out), "out is a record");
        for (value, word) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*word);
        }
        Ok(())
    }
}
