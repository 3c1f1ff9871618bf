//! One image as it is uploaded: its files, and what a client wants to see of them.

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::thumbnail;
use image::{ExtendedColorType, GrayImage, ImageEncoder};
use tokio::sync::oneshot;

use super::ServeError;
use super::input::upload_limits;
use rgby_imaging::{ChannelError, DecodeError, Planes, decode_channels, decode_plane};

/// The name of the file that holds all stains.
pub(super) const WHOLE_NAME: &str = "image";

/// One image. It becomes [`Planes`] on a thread that may take its time.
#[derive(Debug)]
pub struct Upload {
    files: UploadFiles,
    show: Option<(u32, oneshot::Sender<Preview>)>,
}

/// The files of one image.
#[derive(Debug)]
pub enum UploadFiles {
    /// A file for each of the model's stains, in their order.
    Stains(Vec<(String, Bytes)>),
    /// One TIFF file that holds them all.
    Whole {
        /// The file.
        bytes: Bytes,
        /// The model's stains, in their order.
        stains: Vec<String>,
        /// What each of them is called in the file: its name in the OME-XML, or its number.
        channels: Vec<String>,
    },
}

/// An image for people to look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Preview {
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in pixels.
    pub height: u32,
    /// A gray PNG of each stain, in the model's order, made smaller where it was asked for.
    pub planes: Vec<Vec<u8>>,
}

impl From<UploadFiles> for Upload {
    fn from(files: UploadFiles) -> Self {
        Self { files, show: None }
    }
}

impl Upload {
    /// Has the planes sent to `to` when they are decoded, at most `side` pixels wide and high.
    #[must_use]
    pub fn show(self, side: u32, to: oneshot::Sender<Preview>) -> Self {
        Self {
            show: Some((side, to)),
            ..self
        }
    }

    /// Decodes the files.
    ///
    /// # Errors
    ///
    /// [`ServeError::Invalid`] if a file is no image that can be used, or sizes differ.
    pub fn decode(self) -> Result<Planes, ServeError> {
        let planes = self.files.decode()?;
        if let Some((side, to)) = self.show {
            // A client that left looks at nothing.
            let _ = to.send(Preview::of(&planes, side)?);
        }
        Ok(planes)
    }
}

impl UploadFiles {
    fn decode(&self) -> Result<Planes, ServeError> {
        match self {
            Self::Stains(files) => decode_each(files),
            Self::Whole {
                bytes,
                stains,
                channels,
            } => {
                let wanted: Vec<&str> = channels.iter().map(String::as_str).collect();
                let planes = decode_channels(bytes, &wanted, &upload_limits());
                planes.map_err(|error| ServeError::Invalid(whole_refused(&error, stains)))
            }
        }
    }
}

/// Decodes a file for each stain.
fn decode_each(files: &[(String, Bytes)]) -> Result<Planes, ServeError> {
    let limits = upload_limits();
    let mut planes = Planes::default();
    for (stain, bytes) in files {
        let refused = |error: DecodeError| ServeError::Invalid(format!("`{stain}`: {error}"));
        let plane = decode_plane(bytes, &limits).map_err(refused)?;
        let size = (plane.width, plane.height);
        if planes.channels == 0 {
            (planes.width, planes.height) = size;
        } else if size != (planes.width, planes.height) {
            return Err(ServeError::Invalid(format!(
                "`{stain}` is {}×{} pixels, but `{}` is {}×{}; the channels of an image must agree",
                size.0, size.1, files[0].0, planes.width, planes.height
            )));
        }
        planes.channels += 1;
        planes.data.extend(plane.data);
    }
    Ok(planes)
}

/// What is wrong with a file of all stains, and what a form can do about it.
fn whole_refused(error: &DecodeError, stains: &[String]) -> String {
    let DecodeError::Channels(error) = error else {
        return format!("`{WHOLE_NAME}`: {error}");
    };
    let stains = stains.join(", ");
    match error {
        ChannelError::Missing { wanted, found } => format!(
            "`{WHOLE_NAME}` has no channel `{wanted}`; its channels are {found}: say in the field \
             `channels` which of them are {stains}, in this order, by names or numbers: 0,1,…"
        ),
        ChannelError::Ambiguous { wanted, found } => format!(
            "`{WHOLE_NAME}` has several channels `{wanted}`; its channels are {found}: choose by \
             number in the field `channels`"
        ),
        ChannelError::NotTiff => format!(
            "`{WHOLE_NAME}` is no TIFF file, and only those hold several channels; send a file for \
             each of {stains}"
        ),
        other => format!("`{WHOLE_NAME}` {other}"),
    }
}

impl Preview {
    fn of(planes: &Planes, side: u32) -> Result<Self, ServeError> {
        let Planes {
            width,
            height,
            channels,
            ..
        } = *planes;
        let (small_width, small_height) = fit((width, height), side);
        let mut shown = Vec::with_capacity(channels);
        for plane in planes.data.chunks_exact(planes.plane_len().max(1)) {
            let gray = GrayImage::from_raw(width, height, plane.to_vec());
            let mut gray =
                gray.ok_or_else(|| ServeError::Failed("a plane has no pixels".into()))?;
            if (small_width, small_height) != (width, height) {
                gray = thumbnail(&gray, small_width, small_height);
            }
            shown.push(gray_png(&gray)?);
        }
        Ok(Self {
            width,
            height,
            planes: shown,
        })
    }
}

/// The size that fits into a square, without growing or losing its shape.
fn fit((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let longest = width.max(height).max(1);
    if longest <= side {
        return (width, height);
    }
    let scaled = |length: u32| {
        let scaled = u64::from(length) * u64::from(side) / u64::from(longest);
        // No more than `side`.
        (scaled as u32).max(1)
    };
    (scaled(width), scaled(height))
}

/// A gray image as PNG, packed fast rather than small.
///
/// # Errors
///
/// [`ServeError::Failed`], which no image should make happen.
pub(super) fn gray_png(gray: &GrayImage) -> Result<Vec<u8>, ServeError> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
    let (width, height) = gray.dimensions();
    let written = encoder.write_image(gray, width, height, ExtendedColorType::L8);
    written.map_err(|error| ServeError::Failed(format!("cannot write a PNG: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_fits_and_keeps_its_shape() {
        for (size, fits) in [
            ((64, 64), (64, 64)),
            ((128, 128), (64, 64)),
            ((16_384, 4), (64, 1)),
            ((100, 200), (32, 64)),
            ((3, 2), (3, 2)),
        ] {
            assert_eq!(fit(size, 64), fits, "{size:?}");
        }
    }

    #[test]
    fn planes_are_shown_as_gray_files() {
        let planes = Planes {
            width: 4,
            height: 2,
            channels: 2,
            data: [[10; 8], [200; 8]].concat(),
        };
        let shown = Preview::of(&planes, 2).unwrap();
        assert_eq!((shown.width, shown.height), (4, 2));
        for (png, gray) in shown.planes.iter().zip([10, 200]) {
            let plane = decode_plane(png, &upload_limits()).unwrap();
            assert_eq!(
                (plane.width, plane.height, plane.data),
                (2, 1, vec![gray; 2])
            );
        }
    }
}
