//! The pages of a TIFF file, each decoded when it is wanted.

use std::io::{Cursor, Read, Seek};

use tiff::decoder::{BufferLayoutPreference, ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::{SampleFormat, Tag, Type, ValueBuffer};
use tiff::{ColorType, TiffError};

use super::super::gray_8_bit;
use super::{ChannelError, DecodeError, DecodeLimits};

/// Most pages that a file may have: whole plates in one file are not read.
const MAX_PAGES: usize = 4096;
/// Most entries that all pages' directories may have together. Directories may overlap, so that a
/// small file could otherwise keep the reader busy for minutes.
const MAX_ENTRIES: usize = 1 << 18;
/// Most bytes of a page's tag, the description's included.
const MAX_TAG: usize = 1 << 20;

/// Where a channel's pixels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PagePosition {
    page: usize,
    /// Which of the values of a pixel.
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

/// What a page's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TiffHeader {
    pub size: (u32, u32),
    /// Bits a value, 8 or 16.
    pub bits: u8,
    /// Values a pixel.
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

/// A TIFF file.
pub(super) struct Pages<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    limits: &'a DecodeLimits,
    count: usize,
    /// The page whose values `buffer` holds.
    decoded: Option<usize>,
    buffer: DecodingResult,
}

impl<'a> Pages<'a> {
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
        pages.count = pages.walk()?;
        Ok(pages)
    }

    /// Number of pages.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Counts the pages without looking at what they are.
    fn walk(&mut self) -> Result<usize, DecodeError> {
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

    /// The first page's description, if it has one.
    pub(super) fn description(&mut self) -> Result<Option<String>, DecodeError> {
        let mut text = ValueBuffer::empty(Type::ASCII);
        let mut first = self.decoder.image_ifd();
        let found = first.find_tag_buf(Tag::ImageDescription, &mut text);
        let found = found.map_err(|error| explain(error, self.limits))?;
        let bytes = text.as_bytes();
        Ok(found.map(|_| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// The header of the page that is being looked at: the first, before any is decoded.
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
            return unsupported(format!("a page of {} bits a value", head.bits));
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
            return unsupported("a page whose values are not all alike".into());
        }
        Ok(head)
    }

    /// Decodes a channel behind the bytes of `out`; returns its width and height.
    pub(super) fn append(
        &mut self,
        place: PagePosition,
        out: &mut Vec<u8>,
    ) -> Result<(u32, u32), DecodeError> {
        let seek = self.decoder.seek_to_image(place.page);
        seek.map_err(|error| explain(error, self.limits))?;
        let head = self.head()?;
        if place.sample >= usize::from(head.samples) || (place.page > 0 && head.samples > 1) {
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
            let layout = self.fill(place.page, &head)?;
            let values = Values::of(&layout, &head, place.sample);
            match &self.buffer {
                DecodingResult::U8(all) => out.extend(values.pick(all)),
                DecodingResult::U16(all) => out.extend(values.pick(all).map(gray_8_bit)),
                _ => return Err(DecodeError::Unsupported("a page of such values".into())),
            }
        }
        Ok(head.size)
    }

    /// Decodes all values of a page into the buffer, unless they are there.
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
        // Where not all planes fit, the decoder reads the first alone and reports success.
        if (self.buffer.as_buffer(0).byte_len() as u64) < head.bytes() {
            return Err(DecodeError::TooManyBytes {
                limit: self.limits.max_bytes,
            });
        }
        self.decoded = Some(page);
        Ok(layout)
    }
}

/// Which values of a page are a channel's.
struct Values {
    start: usize,
    step: usize,
    count: usize,
}

impl Values {
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

/// What `tiff` cannot read: it takes the tiles of a second plane for ones outside of the image, and
/// panics.
pub(in crate::decode) const PLANAR_TILES: &str = "a tiled page with its values in planes";

/// Whether the page that is being looked at is of that kind.
fn has_planar_tiles<R: Read + Seek>(decoder: &mut Decoder<R>) -> bool {
    const PLANES: u16 = 2;
    let layout = decoder.find_tag_unsigned(Tag::PlanarConfiguration);
    let samples = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel);
    decoder.get_chunk_type() == ChunkType::Tile
        && matches!(layout, Ok(Some(PLANES)))
        && matches!(samples, Ok(Some(2..)))
}

/// Whether the first page of a file is of that kind; `false` for what is no such file.
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
        TiffError::IoError(_) => DecodeError::Damaged("it ends too early".into()),
        other => DecodeError::Damaged(other.to_string()),
    }
}
