//! Several preprocessings of the same samples, for models that want their input in several ways.

use std::sync::Arc;

use super::preparer::with_planes;
use super::{
    DecodeLimits, FileSource, LocalFiles, Preparer, Preprocess, Sample, SampleError, Variation, mix,
};

/// Several [`Preprocess`]ings that are ready for any number of samples: a sample's files are read
/// and decoded once for all of them.
#[derive(Debug, Clone)]
pub struct Preparers {
    each: Vec<Preparer>,
}

impl Preparers {
    /// Works out what is the same for all samples.
    ///
    /// # Panics
    ///
    /// If [`Preprocess::validate`] refuses one of them.
    #[must_use]
    pub fn new(preprocesses: &[Preprocess]) -> Self {
        let stains = Self::stains(preprocesses);
        let prepare = |p: &Preprocess| Preparer::of_stains(Arc::new(p.clone()), stains.clone());
        Self {
            each: preprocesses.iter().map(prepare).collect(),
        }
    }

    /// The stains that they need together, each once, in the order in which they first appear: the
    /// files that a sample must have.
    #[must_use]
    pub fn stains(preprocesses: &[Preprocess]) -> Vec<String> {
        let channels = preprocesses.iter().flat_map(|p| &p.channels);
        mix::stains(&channels.cloned().collect::<Vec<_>>())
    }

    /// Number of values that a sample becomes: the inputs of all of them.
    #[must_use]
    pub fn input_len(&self) -> usize {
        let lens = self.each.iter().map(|one| one.preprocess().input_len());
        lens.sum()
    }

    /// Reads a sample of these [`stains`](Self::stains) into `out`: `[C, size, size]` of the first
    /// preprocessing, then that of the next, and so on.
    ///
    /// # Errors
    ///
    /// As [`read_sample`](super::read_sample).
    ///
    /// # Panics
    ///
    /// If `out` does not hold [`input_len`](Self::input_len) values.
    pub fn load(
        &self,
        sample: &Sample,
        limits: &DecodeLimits,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        self.load_from(&LocalFiles, sample, limits, out)
    }

    /// As [`load`](Self::load), of files that come from `files`.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    ///
    /// # Panics
    ///
    /// As [`load`](Self::load).
    pub fn load_from(
        &self,
        files: &dyn FileSource,
        sample: &Sample,
        limits: &DecodeLimits,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        with_planes(files, sample, limits, |planes| {
            let mut rest = out;
            for one in &self.each {
                let (input, others) = rest.split_at_mut(one.preprocess().input_len());
                one.prepare(planes, &Variation::default(), input);
                rest = others;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};

    use super::*;
    use crate::find_samples;

    #[test]
    fn each_input_is_what_its_preprocessing_makes_alone() {
        let dir = tempfile::tempdir().unwrap();
        for (number, stain) in ["blue", "green", "red", "yellow"].iter().enumerate() {
            let pixel = |x, y| Luma([(x * 31 + y * 17 + number as u32 * 50) as u8]);
            let path = dir.path().join(format!("a_{stain}.png"));
            GrayImage::from_fn(13, 9, pixel).save(path).unwrap();
        }
        let preprocesses = [
            Preprocess::new(&["green", "red"], 8),
            Preprocess::new(&["yellow/2+red/2"], 5),
            Preprocess {
                mean: vec![0.1; 2],
                std: vec![0.2; 2],
                ..Preprocess::new(&["red", "blue"], 13)
            },
        ];
        let limits = DecodeLimits::default();
        let mut expected = Vec::new();
        for one in &preprocesses {
            let samples = find_samples(dir.path(), &one.stains()).unwrap();
            let mut input = vec![0.0; one.input_len()];
            let alone = Preparer::new(one.clone());
            alone.load(&samples[0], &limits, &mut input).unwrap();
            expected.extend(input);
        }
        let stains = Preparers::stains(&preprocesses);
        assert_eq!(stains, ["green", "red", "yellow", "blue"]);
        let all = Preparers::new(&preprocesses);
        let samples = find_samples(dir.path(), &stains).unwrap();
        let mut found = vec![0.0; all.input_len()];
        all.load(&samples[0], &limits, &mut found).unwrap();
        assert_eq!(found, expected);
    }
}
