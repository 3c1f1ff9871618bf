//! Preprocessing of many samples: what is the same for all is worked out once, and each thread
//! keeps its buffers.

use std::cell::Cell;
use std::sync::Arc;

use super::resize::Resized;
use super::sample::read_sample_into;
use super::{
    DecodeLimits, FileSource, LocalFiles, Mix, Planes, Preprocess, Sample, SampleError, Variation,
    dihedral,
};

/// Most bytes of a buffer that a thread keeps for its next sample: one huge image must not hold
/// its memory for the rest of the run.
const KEPT: usize = 64 << 20;

thread_local! {
    static READ: Cell<ReadSample> = Cell::default();
    static WORK: Cell<Work> = Cell::default();
}

/// A sample's files.
#[derive(Default)]
struct ReadSample {
    bytes: Vec<u8>,
    planes: Planes,
}

/// What lies between the planes and the input.
#[derive(Default)]
struct Work {
    part: Planes,
    resized: Resized,
}

/// A [`Preprocess`] that is ready for any number of samples, on any number of threads.
#[derive(Debug, Clone)]
pub struct Preparer {
    preprocess: Arc<Preprocess>,
    stains: Vec<String>,
    mixes: Vec<Mix>,
}

impl Preparer {
    /// Works out what is the same for all samples.
    ///
    /// # Panics
    ///
    /// If [`Preprocess::validate`] refuses the channels.
    #[must_use]
    pub fn new(preprocess: impl Into<Arc<Preprocess>>) -> Self {
        let preprocess = preprocess.into();
        let stains = preprocess.stains();
        Self::of_stains(preprocess, stains)
    }

    /// As [`new`](Self::new), for samples of `stains`: its own and others.
    pub(super) fn of_stains(preprocess: Arc<Preprocess>, stains: Vec<String>) -> Self {
        let mix = |channel: &String| {
            let mix: Result<Mix, _> = channel.parse();
            mix.unwrap_or_else(|error| panic!("`channels` were not validated: {error}"))
        };
        Self {
            stains,
            mixes: preprocess.channels.iter().map(mix).collect(),
            preprocess,
        }
    }

    /// What it was made of.
    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Reads a sample into `out`, `[C, size, size]`: [`read_sample`](super::read_sample), then
    /// [`prepare`](Self::prepare) without any variation.
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
        self.load_with(sample, limits, |_| Ok(Variation::default()), out)
    }

    /// As [`load`](Self::load), but varied: `vary` sees what was read and says how, or refuses it.
    ///
    /// # Errors
    ///
    /// As [`read_sample`](super::read_sample), or that of `vary`.
    ///
    /// # Panics
    ///
    /// As [`prepare`](Self::prepare).
    pub fn load_with(
        &self,
        sample: &Sample,
        limits: &DecodeLimits,
        vary: impl FnOnce(&Planes) -> Result<Variation, SampleError>,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        with_planes(&LocalFiles, sample, limits, |planes| {
            vary(planes).map(|variation| self.prepare(planes, &variation, out))
        })
    }

    /// Turns a sample's stains into the network's input `out`, `[C, size, size]`: crops, stretches
    /// to `size`×`size`, varies, mixes stains into channels, and takes `(x / 255 − mean) / std`.
    ///
    /// `planes` are the preprocessing's [`stains`](Preprocess::stains) in their order, as
    /// [`read_sample`](super::read_sample) yields them for a sample that
    /// [`find_samples`](super::find_samples) found by those stains.
    ///
    /// # Panics
    ///
    /// If `out` does not hold [`input_len`](Preprocess::input_len) values, or if there is not one
    /// plane for each stain.
    pub fn prepare(&self, planes: &Planes, variation: &Variation, out: &mut [f32]) {
        let Preprocess { size, resize, .. } = *self.preprocess;
        assert_eq!(planes.channels, self.stains.len(), "planes are one a stain");
        assert_eq!(
            out.len(),
            self.preprocess.input_len(),
            "out is [channels, size, size]"
        );
        let mut work = WORK.take();
        let shown = match &variation.crop {
            Some(crop) => {
                crop.cut(planes, &mut work.part);
                &work.part
            }
            None => planes,
        };
        let side = size as usize;
        let whole = variation.gains.is_empty();
        // Whole numbers stay bytes until they are normalised; gains make fractions of them.
        let bytes = whole.then(|| work.resized.bytes(shown, size, resize));
        if let Some(pixels) = bytes.flatten() {
            for plane in pixels.chunks_exact_mut(side * side) {
                dihedral(plane, side, variation.dihedral);
            }
            self.mix(pixels, out);
        } else {
            let pixels = work.resized.floats(shown, size, resize);
            for (number, plane) in pixels.chunks_exact_mut(side * side).enumerate() {
                variation.apply(number, plane, side);
            }
            self.mix(pixels, out);
        }
        if planes.data.len().max(out.len()) <= KEPT {
            WORK.set(work);
        }
    }

    /// Mixes the resized stains into channels and normalises them.
    fn mix<T: Copy + Into<f32>>(&self, pixels: &[T], out: &mut [f32]) {
        let area = (self.preprocess.size as usize).pow(2);
        let plane = |stain: &str| {
            let number = self.stains.iter().position(|known| known == stain);
            &pixels[number.unwrap_or(0) * area..][..area]
        };
        for (at, target) in out.chunks_exact_mut(area).enumerate() {
            self.mixes[at].apply(plane, target);
            let (mean, std) = (self.preprocess.mean[at], self.preprocess.std[at]);
            for x in target {
                *x = (*x / 255.0 - mean) / std;
            }
        }
    }
}

/// Reads a sample into this thread's buffers and shows it to `then`.
pub(super) fn with_planes(
    files: &dyn FileSource,
    sample: &Sample,
    limits: &DecodeLimits,
    then: impl FnOnce(&Planes) -> Result<(), SampleError>,
) -> Result<(), SampleError> {
    let ReadSample {
        mut bytes,
        mut planes,
    } = READ.take();
    let done = read_sample_into(files, sample, limits, (&mut bytes, &mut planes))
        .and_then(|()| then(&planes));
    if bytes.capacity().max(planes.data.capacity()) <= KEPT {
        READ.set(ReadSample { bytes, planes });
    }
    done
}

#[cfg(test)]
mod tests;
