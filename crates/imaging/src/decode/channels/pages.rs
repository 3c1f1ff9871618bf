//! Pages of a TIFF file, decoded on demand.

use std::io::{Cursor, Read, Seek};

use tiff::decoder::{BufferLayoutPreference, ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::{SampleFormat, Tag, Type, ValueBuffer};
use tiff::{ColorType, TiffError};

use super::super::gray_8_bit;
use super::{ChannelError, DecodeError, DecodeLimits};

/// Limit of pages per file. Whole plates in one file are not supported.
const MAX_PAGES: usize = 4096;
/// Limit of entries in all directories together. Directories may overlap, so a small file could
/// otherwise take minutes to read.
const MAX_ENTRIES: usize = 1 << 18;
/// Largest tag value in bytes, including the description.
const MAX_TAG: usize = 1 << 20;

/// Position of a channel's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PagePosition {
    page: usize,
    /// Index of the sample within a pixel.
    sample: usize,
}

impl PagePosition {
    pub(super) fn of_page(page: usize) -> Self {
        Self { page, sample: 0 }
    }

    pub(super) fn of_sample(sample: usize) -> Self {
        Self { page: 0, sample }
    }
}

/// Header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TiffHeader {
    pub size: (u32, u32),
    /// Bits per sample, 8 or 16.
    pub bits: u8,
    /// Samples per pixel.
    pub samples: u16,
}

impl TiffHeader {
    fn plane_len(&self) -> usize {
        self.size.0 as usize * self.size.1 as usize
    }

    fn bytes(&self) -> u64 {
        let pixels = u64::from(self.size.0) * u64::from(self.size.1);
        pixels.saturating_mul(u64::from(self.samples) * u64::from(self.bits / 8))
    }
}

pub(super) struct TiffPages<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    limits: &'a DecodeLimits,
    count: usize,
    /// The page in `buffer`.
    decoded: Option<usize>,
    buffer: DecodingResult,
}

impl<'a> TiffPages<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: &'a DecodeLimits) -> Result<Self, DecodeError> {
        let explain = |error| explain(error, limits);
        let decoder = Decoder::new(Cursor::new(bytes)).map_err(explain)?;
        let mut bounds = Limits::default();
        bounds.decoding_buffer_size = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
        bounds.intermediate_buffer_size = bounds.decoding_buffer_size;
        bounds.ifd_value_size = MAX_TAG;
        let mut pages = Self {
            decoder: decoder.with_limits(bounds),
            limits,
            count: 0,
            decoded: None,
            buffer: DecodingResult::U8(Vec::new()),
        };
        pages.count = pages.count_pages()?;
        Ok(pages)
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Counts the pages without reading their headers.
    fn count_pages(&mut self) -> Result<usize, DecodeError> {
        let mut next = self.decoder.ifd_pointer();
        let (mut pages, mut entries) = (0, 0);
        while let Some(pointer) = next {
            let directory = self.decoder.read_directory(pointer);
            let directory = directory.map_err(|error| explain(error, self.limits))?;
            pages += 1;
            entries += directory.len();
            if pages > MAX_PAGES || entries > MAX_ENTRIES {
                return Err(ChannelError::TooManyPages(MAX_PAGES).into());
            }
            next = directory.next();
        }
        Ok(pages)
    }

    /// Returns the first page's description, if there is one.
    pub(super) fn description(&mut self) -> Result<Option<String>, DecodeError> {
        let mut text = ValueBuffer::empty(Type::ASCII);
        let mut first = self.decoder.image_ifd();
        let found = first.find_tag_buf(Tag::ImageDescription, &mut text);
        let found = found.map_err(|error| explain(error, self.limits))?;
        let bytes = text.as_bytes();
        Ok(found.map(|_| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Returns the header of the current page, initially the first one.
    pub(super) fn head(&mut self) -> Result<TiffHeader, DecodeError> {
        let explain = |error| explain(error, self.limits);
        let size = self.decoder.dimensions().map_err(explain)?;
        let color = self.decoder.colortype().map_err(explain)?;
        let unsupported = |what: String| Err(DecodeError::Unsupported(what));
        if matches!(
            color,
            ColorType::Palette(_) | ColorType::YCbCr(_) | ColorType::Lab(_)
        ) {
            return unsupported(format!("a page of {color:?} pixels"));
        }
        let samples = self.decoder.find_tag_unsigned(Tag::SamplesPerPixel);
        let samples = samples.map_err(explain)?.unwrap_or(1);
        let head = TiffHeader {
            size,
            bits: color.bit_depth(),
            samples,
        };
        if head.bits != 8 && head.bits != 16 {
            return unsupported(format!("a page of {} bits per sample", head.bits));
        }
        self.limits.check(size.0, size.1, head.bytes())?;
        if has_planar_tiles(&mut self.decoder) {
            return unsupported(PLANAR_TILES.into());
        }
        let layout = self.decoder.image_buffer_layout().map_err(explain)?;
        if layout.sample_format != SampleFormat::Uint {
            return unsupported(format!("a page of {:?} values", layout.sample_format));
        }
        if layout.complete_len as u64 != head.bytes() {
            return unsupported("a page whose samples differ in type".into());
        }
        Ok(head)
    }

    /// Decodes a channel and appends its pixels to `out`. Returns width and height.
    pub(super) fn append(
        &mut self,
        position: PagePosition,
        out: &mut Vec<u8>,
    ) -> Result<(u32, u32), DecodeError> {
        let seek = self.decoder.seek_to_image(position.page);
        seek.map_err(|error| explain(error, self.limits))?;
        let head = self.head()?;
        if position.sample >= usize::from(head.samples) || (position.page > 0 && head.samples > 1) {
            return Err(ChannelError::Mixed {
                pages: self.count,
                samples: head.samples.into(),
            }
            .into());
        }
        if head.samples == 1 && head.bits == 8 {
            let start = out.len();
            out.resize(start + head.plane_len(), 0);
            let read = self.decoder.read_image_bytes(&mut out[start..]);
            read.map_err(|error| explain(error, self.limits))?;
        } else {
            let layout = self.fill(position.page, &head)?;
            let values = ChannelValues::of(&layout, &head, position.sample);
            match &self.buffer {
                DecodingResult::U8(all) => out.extend(values.pick(all)),
                DecodingResult::U16(all) => out.extend(values.pick(all).map(gray_8_bit)),
                _ => {
                    return Err(DecodeError::Unsupported(
                        "a page of this sample type".into(),
                    ));
                }
            }
        }
        Ok(head.size)
    }

    /// Decodes all samples of a page into the buffer, unless it already contains them.
    fn fill(
        &mut self,
        page: usize,
        head: &TiffHeader,
    ) -> Result<BufferLayoutPreference, DecodeError> {
        let explain = |error| explain(error, self.limits);
        if self.decoded == Some(page) {
            return self.decoder.image_buffer_layout().map_err(explain);
        }
        self.decoded = None;
        let read = self.decoder.read_image_to_buffer(&mut self.buffer);
        let layout = read.map_err(explain)?;
        // If not all planes fit, the decoder reads only the first and reports success.
        if (self.buffer.as_buffer(0).byte_len() as u64) < head.bytes() {
            return Err(DecodeError::TooManyBytes {
                limit: self.limits.max_bytes,
            });
        }
        self.decoded = Some(page);
        Ok(layout)
    }
}

/// Positions of one channel's values in a decoded page.
struct ChannelValues {
    start: usize,
    step: usize,
    count: usize,
}

impl ChannelValues {
    fn of(layout: &BufferLayoutPreference, head: &TiffHeader, sample: usize) -> Self {
        let count = head.plane_len();
        if layout.planes > 1 {
            Self {
                start: sample * count,
                step: 1,
                count,
            }
        } else {
            Self {
                start: sample,
                step: head.samples.into(),
                count,
            }
        }
    }

    fn pick<T: Copy>(&self, all: &[T]) -> impl Iterator<Item = T> {
        let values = all.iter().skip(self.start).step_by(self.step);
        values.take(self.count).copied()
    }
}

/// Not supported by `tiff` 0.11, which treats tiles of a second plane as outside of the image and
/// panics.
pub(in crate::decode) const PLANAR_TILES: &str = "a tiled page with planar samples";

/// Returns whether the current page is of that kind.
fn has_planar_tiles<R: Read + Seek>(decoder: &mut Decoder<R>) -> bool {
    const PLANES: u16 = 2;
    let layout = decoder.find_tag_unsigned(Tag::PlanarConfiguration);
    let samples = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel);
    decoder.get_chunk_type() == ChunkType::Tile
        && matches!(layout, Ok(Some(PLANES)))
        && matches!(samples, Ok(Some(2..)))
}

/// Returns whether the first page of a file is of that kind; `false` for files that are not TIFF.
pub(in crate::decode) fn begins_with_planar_tiles(bytes: &[u8]) -> bool {
    let decoder = Decoder::new(Cursor::new(bytes));
    decoder.is_ok_and(|mut decoder| has_planar_tiles(&mut decoder))
}

fn explain(error: TiffError, limits: &DecodeLimits) -> DecodeError {
    match error {
        TiffError::LimitsExceeded => DecodeError::TooManyBytes {
            limit: limits.max_bytes,
        },
        TiffError::UnsupportedError(what) => DecodeError::Unsupported(what.to_string()),
        TiffError::IoError(_) => DecodeError::Damaged("the file ends too early".into()),
        other => DecodeError::Damaged(other.to_string()),
    }
}
