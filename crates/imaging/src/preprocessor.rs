//! Preprocessing of many samples: [`Preprocessor`] for one network, [`PreprocessorSet`] for several
//! networks that read the same files.
//!
//! Whatever is the same for all samples is computed once. Each thread keeps its buffers.

use std::cell::Cell;
use std::sync::Arc;

use super::read_sample::read_sample_into;
use super::resize::ResizeBuffers;
use super::{
    Augmentation, DecodeLimits, FileSource, LocalFiles, Planes, Preprocess, Sample, SampleError,
    StainMix, dihedral, stain_mix,
};

/// Largest buffer in bytes that a thread keeps for its next sample. Larger ones are freed, because
/// one huge image should not occupy memory until the end.
const MAX_KEPT_BYTES: usize = 64 << 20;

thread_local! {
    static READ: Cell<ReadBuffers> = Cell::default();
    static PREPARE: Cell<PrepareBuffers> = Cell::default();
}

/// One encoded file and the decoded planes of a sample.
#[derive(Default)]
struct ReadBuffers {
    bytes: Vec<u8>,
    planes: Planes,
}

/// Intermediate results between planes and input.
#[derive(Default)]
struct PrepareBuffers {
    cropped: Planes,
    resized: ResizeBuffers,
}

/// Executes one [`Preprocess`] for any number of samples, on any number of threads.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    preprocess: Arc<Preprocess>,
    /// Names of the planes that [`prepare`](Self::prepare) receives.
    stains: Vec<String>,
    mixes: Vec<StainMix>,
}

impl Preprocessor {
    /// Parses the channels once for all samples.
    ///
    /// # Panics
    ///
    /// If [`Preprocess::validate`] rejects the channels.
    #[must_use]
    pub fn new(preprocess: impl Into<Arc<Preprocess>>) -> Self {
        let preprocess = preprocess.into();
        let stains = preprocess.stains();
        Self::with_stains(preprocess, stains)
    }

    /// As [`new`](Self::new), for samples of `stains`, which may contain more than it uses.
    fn with_stains(preprocess: Arc<Preprocess>, stains: Vec<String>) -> Self {
        let mix = |channel: &String| {
            let mix: Result<StainMix, _> = channel.parse();
            mix.unwrap_or_else(|error| panic!("`channels` were not validated: {error}"))
        };
        Self {
            stains,
            mixes: preprocess.channels.iter().map(mix).collect(),
            preprocess,
        }
    }

    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Reads a sample into `out`, `[C, size, size]`: [`read_sample`](super::read_sample), then
    /// [`prepare`](Self::prepare) without augmentation.
    ///
    /// # Errors
    ///
    /// As [`read_sample`](super::read_sample).
    ///
    /// # Panics
    ///
    /// As [`prepare`](Self::prepare).
    pub fn load(
        &self,
        sample: &Sample,
        limits: &DecodeLimits,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        self.load_with(sample, limits, |_| Ok(Augmentation::default()), out)
    }

    /// As [`load`](Self::load), with the augmentation that `augment` returns for the decoded
    /// planes.
    ///
    /// # Errors
    ///
    /// As [`read_sample`](super::read_sample), or the error of `augment`.
    ///
    /// # Panics
    ///
    /// As [`prepare`](Self::prepare).
    pub fn load_with(
        &self,
        sample: &Sample,
        limits: &DecodeLimits,
        augment: impl FnOnce(&Planes) -> Result<Augmentation, SampleError>,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        with_planes(&LocalFiles, sample, limits, |planes| {
            augment(planes).map(|augmentation| self.prepare(planes, &augmentation, out))
        })
    }

    /// Converts the stains of a sample into the network's input `out`, `[C, size, size]`: crops,
    /// resizes to `size`×`size`, augments, mixes stains into channels, and normalizes by
    /// `(x / 255 − mean) / std`.
    ///
    /// `planes` are the preprocessing's [`stains`](Preprocess::stains) in their order, as
    /// [`read_sample`](super::read_sample) returns them for a sample that
    /// [`find_samples`](super::find_samples) found by those stains.
    ///
    /// # Panics
    ///
    /// If `out` does not hold [`input_len`](Preprocess::input_len) values, or if there is not one
    /// plane for each stain.
    pub fn prepare(&self, planes: &Planes, augmentation: &Augmentation, out: &mut [f32]) {
        let Preprocess { size, resize, .. } = *self.preprocess;
        assert_eq!(planes.channels, self.stains.len(), "one plane per stain");
        assert_eq!(
            out.len(),
            self.preprocess.input_len(),
            "out is [channels, size, size]"
        );
        let mut buffers = PREPARE.take();
        let source = match &augmentation.crop {
            Some(crop) => {
                crop.cut(planes, &mut buffers.cropped);
                &buffers.cropped
            }
            None => planes,
        };
        let side = size as usize;
        // Integers stay bytes until they are normalized, which is faster. Gains make fractions.
        let integers = augmentation.gains.is_empty();
        let bytes = integers.then(|| buffers.resized.bytes(source, size, resize));
        if let Some(pixels) = bytes.flatten() {
            for plane in pixels.chunks_exact_mut(side * side) {
                dihedral(plane, side, augmentation.dihedral);
            }
            self.mix(pixels, out);
        } else {
            let pixels = buffers.resized.floats(source, size, resize);
            for (number, plane) in pixels.chunks_exact_mut(side * side).enumerate() {
                augmentation.apply(number, plane, side);
            }
            self.mix(pixels, out);
        }
        if planes.data.len().max(out.len()) <= MAX_KEPT_BYTES {
            PREPARE.set(buffers);
        }
    }

    /// Mixes the resized stains into channels and normalizes them.
    fn mix<T: Copy + Into<f32>>(&self, pixels: &[T], out: &mut [f32]) {
        let area = (self.preprocess.size as usize).pow(2);
        let plane = |stain: &str| {
            let number = self.stains.iter().position(|known| known == stain);
            &pixels[number.unwrap_or(0) * area..][..area]
        };
        for (channel, target) in out.chunks_exact_mut(area).enumerate() {
            self.mixes[channel].apply(plane, target);
            let (mean, std) = (self.preprocess.mean[channel], self.preprocess.std[channel]);
            for x in target {
                *x = (*x / 255.0 - mean) / std;
            }
        }
    }
}

/// Executes several [`Preprocess`] specifications, such as those of an ensemble. The files of a
/// sample are read and decoded once for all of them.
#[derive(Debug, Clone)]
pub struct PreprocessorSet {
    preprocessors: Vec<Preprocessor>,
}

impl PreprocessorSet {
    /// Parses the channels once for all samples.
    ///
    /// # Panics
    ///
    /// If [`Preprocess::validate`] rejects one of them.
    #[must_use]
    pub fn new(preprocesses: &[Preprocess]) -> Self {
        let stains = Self::stains(preprocesses);
        let preprocessor =
            |p: &Preprocess| Preprocessor::with_stains(Arc::new(p.clone()), stains.clone());
        Self {
            preprocessors: preprocesses.iter().map(preprocessor).collect(),
        }
    }

    /// Returns the union of the stains in order of first appearance: the files that a sample must
    /// have.
    #[must_use]
    pub fn stains(preprocesses: &[Preprocess]) -> Vec<String> {
        let channels = preprocesses.iter().flat_map(|p| &p.channels);
        stain_mix::stains(&channels.cloned().collect::<Vec<_>>())
    }

    /// Returns the number of values in one sample's row: the sum of all input lengths.
    #[must_use]
    pub fn input_len(&self) -> usize {
        let preprocesses = self.preprocessors.iter().map(Preprocessor::preprocess);
        preprocesses.map(Preprocess::input_len).sum()
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

    /// As [`load`](Self::load), with files from `files`.
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
            for preprocessor in &self.preprocessors {
                let (input, others) = rest.split_at_mut(preprocessor.preprocess().input_len());
                preprocessor.prepare(planes, &Augmentation::default(), input);
                rest = others;
            }
            Ok(())
        })
    }
}

/// Reads a sample into the buffers of this thread and passes its planes to `then`.
fn with_planes(
    files: &dyn FileSource,
    sample: &Sample,
    limits: &DecodeLimits,
    then: impl FnOnce(&Planes) -> Result<(), SampleError>,
) -> Result<(), SampleError> {
    let ReadBuffers {
        mut bytes,
        mut planes,
    } = READ.take();
    let result = read_sample_into(files, sample, limits, (&mut bytes, &mut planes))
        .and_then(|()| then(&planes));
    if bytes.capacity().max(planes.data.capacity()) <= MAX_KEPT_BYTES {
        READ.set(ReadBuffers { bytes, planes });
    }
    result
}

#[cfg(test)]
mod tests;
