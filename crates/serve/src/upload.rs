//! One uploaded image: its files, and an optional preview of its planes.

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::thumbnail;
use image::{ExtendedColorType, GrayImage, ImageEncoder};
use tokio::sync::oneshot;

use super::ServeError;
use rgby_imaging::{
    ChannelError, DecodeError, DecodeLimits, Planes, decode_channels, decode_plane,
};

/// Name of the form field of a file with all stains.
pub(super) const WHOLE_NAME: &str = "image";

/// One image, decoded on a preparer thread.
#[derive(Debug)]
pub struct Upload {
    files: UploadFiles,
    /// Maximum side of the preview in pixels, and its receiver.
    preview: Option<(u32, oneshot::Sender<Preview>)>,
}

/// The files of one image.
#[derive(Debug)]
pub enum UploadFiles {
    /// One file per stain, in the model's order.
    Stains(Vec<(String, Bytes)>),
    /// One TIFF file with all stains.
    Whole {
        bytes: Bytes,
        /// The model's stains, in their order.
        stains: Vec<String>,
        /// The channel of each stain in the file: a name in the OME-XML, or an index.
        channels: Vec<String>,
    },
}

/// The decoded planes of an image, for display.
#[derive(Debug, PartialEq, Eq)]
pub struct Preview {
    /// Width of the original image in pixels.
    pub width: u32,
    /// Height of the original image in pixels.
    pub height: u32,
    /// A gray PNG per stain, in the model's order, scaled down to the requested side.
    pub planes: Vec<Vec<u8>>,
}

/// Returns the decoding limits of one uploaded image. They are lower than for local files, because
/// a few small files must not exhaust the server's memory.
#[must_use]
pub(super) fn upload_limits() -> DecodeLimits {
    DecodeLimits {
        max_side: 16_384,
        max_bytes: 256 << 20,
        max_file_bytes: 256 << 20,
    }
}

impl From<UploadFiles> for Upload {
    fn from(files: UploadFiles) -> Self {
        Self {
            files,
            preview: None,
        }
    }
}

impl Upload {
    /// Requests a preview of at most `side` pixels, sent to `sender` after decoding.
    #[must_use]
    pub fn with_preview(self, side: u32, sender: oneshot::Sender<Preview>) -> Self {
        Self {
            preview: Some((side, sender)),
            ..self
        }
    }

    /// Decodes the files.
    ///
    /// # Errors
    ///
    /// [`ServeError::Invalid`] if a file cannot be decoded, or the sizes differ.
    pub fn decode(self) -> Result<Planes, ServeError> {
        let planes = self.files.decode()?;
        if let Some((side, sender)) = self.preview {
            // An error means that the client has disconnected.
            let _ = sender.send(Preview::of(&planes, side)?);
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
                let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
                let planes = decode_channels(bytes, &channels, &upload_limits());
                planes.map_err(|error| ServeError::Invalid(channel_error(&error, stains)))
            }
        }
    }
}

/// Decodes one file per stain.
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
                "`{stain}` is {}×{} pixels, but `{}` is {}×{}; all channels must have the same size",
                size.0, size.1, files[0].0, planes.width, planes.height
            )));
        }
        planes.channels += 1;
        planes.data.extend(plane.data);
    }
    Ok(planes)
}

/// Describes the error of a file with all stains in terms of the form's fields.
fn channel_error(error: &DecodeError, stains: &[String]) -> String {
    let DecodeError::Channels(error) = error else {
        return format!("`{WHOLE_NAME}`: {error}");
    };
    let stains = stains.join(", ");
    match error {
        ChannelError::Missing { wanted, found } => format!(
            "`{WHOLE_NAME}` has no channel `{wanted}`; its channels are {found}; list the channels \
             of {stains}, in this order, in the field `channels`, by name or by index: 0,1,…"
        ),
        ChannelError::Ambiguous { wanted, found } => format!(
            "`{WHOLE_NAME}` has several channels `{wanted}`; its channels are {found}; select them \
             by index in the field `channels`"
        ),
        ChannelError::NotTiff => format!(
            "`{WHOLE_NAME}` is not a TIFF file; only TIFF files with several channels are \
             supported; otherwise send one file for each of {stains}"
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
        let mut pngs = Vec::with_capacity(channels);
        for plane in planes.data.chunks_exact(planes.plane_len().max(1)) {
            let gray = GrayImage::from_raw(width, height, plane.to_vec());
            let mut gray =
                gray.ok_or_else(|| ServeError::Failed("a plane has no pixels".into()))?;
            if (small_width, small_height) != (width, height) {
                gray = thumbnail(&gray, small_width, small_height);
            }
            pngs.push(gray_png(&gray)?);
        }
        Ok(Self {
            width,
            height,
            planes: pngs,
        })
    }
}

/// Returns the largest size with the same aspect ratio that fits into a square, never enlarged.
fn fit((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let longest = width.max(height).max(1);
    if longest <= side {
        return (width, height);
    }
    let scaled = |length: u32| {
        let scaled = u64::from(length) * u64::from(side) / u64::from(longest);
        // At most `side`, so it fits into u32.
        (scaled as u32).max(1)
    };
    (scaled(width), scaled(height))
}

/// Encodes a gray image as PNG, with fast compression.
///
/// # Errors
///
/// [`ServeError::Failed`] if the encoder fails.
pub(super) fn gray_png(gray: &GrayImage) -> Result<Vec<u8>, ServeError> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
    let (width, height) = gray.dimensions();
    let written = encoder.write_image(gray, width, height, ExtendedColorType::L8);
    written.map_err(|error| ServeError::Failed(format!("cannot encode a PNG: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_fit_and_keep_the_aspect_ratio() {
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
    fn previews_are_gray_pngs() {
        let planes = Planes {
            width: 4,
            height: 2,
            channels: 2,
            data: [[10; 8], [200; 8]].concat(),
        };
        let preview = Preview::of(&planes, 2).unwrap();
        assert_eq!((preview.width, preview.height), (4, 2));
        for (png, gray) in preview.planes.iter().zip([10, 200]) {
            let plane = decode_plane(png, &upload_limits()).unwrap();
            assert_eq!(
                (plane.width, plane.height, plane.data),
                (2, 1, vec![gray; 2])
            );
        }
    }
}
