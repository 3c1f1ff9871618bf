//! Images of a request, and their conversion to the network's input.

use bytes::Bytes;

use super::model::Model;
use super::{ServeError, Upload};
use rgby_imaging::{Augmentation, Planes, gray_8_bit};

/// Name of the raw input: pixels that the server preprocesses.
pub(super) const PLANES_NAME: &str = "planes";

/// Images of a request. The number of values matches the shape.
#[derive(Debug)]
pub enum InferenceInput {
    /// Preprocessed images: float32 `[count, C, S, S]`.
    Images { count: usize, values: Floats },
    /// Raw planes: `[count, stains, height, width]`.
    Planes {
        count: usize,
        height: u32,
        width: u32,
        pixels: Pixels,
    },
    /// One image as files.
    Upload(Upload),
}

/// Float32 values.
#[derive(Debug)]
pub enum Floats {
    Values(Vec<f32>),
    /// Little-endian, four bytes per value.
    Bytes(Bytes),
}

/// Gray values.
#[derive(Debug)]
pub enum Pixels {
    /// 0–255.
    Gray8(Bytes),
    /// 0–65,535.
    Gray16(Vec<u16>),
    /// 0–65,535, little-endian, two bytes per value.
    Gray16Bytes(Bytes),
}

impl InferenceInput {
    /// Returns the number of images.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Images { count, .. } | Self::Planes { count, .. } => *count,
            Self::Upload(_) => 1,
        }
    }

    /// Returns the network's input, `[count, C, S, S]`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Invalid`] if a value is not finite, or an image file cannot be decoded.
    pub(super) fn prepare(self, model: &Model) -> Result<Vec<f32>, ServeError> {
        match self {
            Self::Images { values, .. } => values.finite(),
            Self::Planes {
                count,
                height,
                width,
                pixels,
            } => {
                let channels = model.spec().preprocess.stains().len();
                let len = channels * height as usize * width as usize;
                let image = |index: usize| Planes {
                    width,
                    height,
                    channels,
                    data: pixels.gray_8(index * len, len),
                };
                Ok(prepare(model, (0..count).map(image)))
            }
            Self::Upload(upload) => Ok(prepare(model, [upload.decode()?])),
        }
    }
}

fn prepare(model: &Model, images: impl IntoIterator<Item = Planes>) -> Vec<f32> {
    let len = model.spec().preprocess.input_len();
    let mut rows = Vec::new();
    for planes in images {
        let start = rows.len();
        rows.resize(start + len, 0.0);
        model
            .preparer()
            .prepare(&planes, &Augmentation::default(), &mut rows[start..]);
    }
    rows
}

impl Floats {
    /// Returns the number of complete values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Bytes(bytes) => bytes.len() / 4,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the values. NaN and infinity are errors.
    fn finite(self) -> Result<Vec<f32>, ServeError> {
        let values = match self {
            Self::Values(values) => values,
            Self::Bytes(bytes) => {
                let (values, _) = bytes.as_chunks();
                values.iter().copied().map(f32::from_le_bytes).collect()
            }
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(ServeError::Invalid(format!(
                "value {at} of the input is {}; all values must be finite float32 numbers",
                values[at]
            ))),
        }
    }
}

impl Pixels {
    /// Returns `len` pixels as 8-bit gray values.
    fn gray_8(&self, start: usize, len: usize) -> Vec<u8> {
        match self {
            Self::Gray8(bytes) => bytes[start..start + len].to_vec(),
            Self::Gray16(values) => {
                let values = values[start..start + len].iter().copied();
                values.map(gray_8_bit).collect()
            }
            Self::Gray16Bytes(bytes) => {
                let (values, _) = bytes[start * 2..(start + len) * 2].as_chunks();
                let values = values.iter().copied().map(u16::from_le_bytes);
                values.map(gray_8_bit).collect()
            }
        }
    }
}
