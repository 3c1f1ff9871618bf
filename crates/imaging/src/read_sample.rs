//! Reads the files of a sample into planes.

use std::path::Path;

use super::decode::{append_channels, append_plane};
use super::{
    DecodeError, DecodeLimits, FileSource, LocalFiles, Planes, Sample, SampleError, SampleErrorKind,
};

/// Reads a sample's files into `[C, H, W]` planes, in the order of its channels.
///
/// # Errors
///
/// [`SampleError`] with the first file that is missing, unreadable or of another size than the
/// first file of the sample.
pub fn read_sample(sample: &Sample, limits: &DecodeLimits) -> Result<Planes, SampleError> {
    let mut planes = Planes::default();
    read_sample_into(&LocalFiles, sample, limits, (&mut Vec::new(), &mut planes))?;
    Ok(planes)
}

/// As [`read_sample`], into `planes`, with `bytes` as buffer for one encoded file after the other.
/// Replaces the content of both and reuses their memory.
pub(super) fn read_sample_into(
    files: &dyn FileSource,
    sample: &Sample,
    limits: &DecodeLimits,
    (bytes, planes): (&mut Vec<u8>, &mut Planes),
) -> Result<(), SampleError> {
    let fail = |file: String, kind| SampleError {
        id: sample.id.clone(),
        file,
        kind,
    };
    planes.data.clear();
    (planes.width, planes.height, planes.channels) = (0, 0, 0);
    let mut first = None;
    while planes.channels < sample.files.len() {
        let channel = planes.channels;
        let Some(path) = &sample.files[channel] else {
            let kind = SampleErrorKind::MissingChannel {
                channel: sample.channels[channel].clone(),
            };
            return Err(fail(sample.expected_file(channel), kind));
        };
        let channels = sample.channels_in_file(channel);
        let size = files
            .read(path, limits.max_file_bytes, bytes)
            .and_then(|()| Ok(append(bytes, &channels, limits, &mut planes.data)?))
            .map_err(|kind| fail(path.display().to_string(), kind))?;
        let other = *first.get_or_insert(path);
        if planes.channels == 0 {
            (planes.width, planes.height) = size;
        }
        let other_size = (planes.width, planes.height);
        if size != other_size {
            let kind = SampleErrorKind::SizesDiffer {
                size,
                other: other.display().to_string(),
                other_size,
            };
            return Err(fail(path.display().to_string(), kind));
        }
        planes.channels += channels.len().max(1);
    }
    Ok(())
}

/// Decodes the channels of a multi-channel file, or the whole file if `channels` is empty, and
/// appends the pixels to `out`. Returns width and height.
fn append(
    bytes: &[u8],
    channels: &[&str],
    limits: &DecodeLimits,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), DecodeError> {
    match channels {
        [] => append_plane(bytes, limits, out),
        _ => append_channels(bytes, channels, limits, out),
    }
}

/// One file of a sample, with its pixels or the reason why it cannot be used.
#[derive(Debug)]
pub struct SampleFile<'a> {
    pub path: &'a Path,
    /// Index of the sample's first channel in the file; the others follow.
    pub first: usize,
    /// Number of the sample's channels in the file.
    pub channels: usize,
    pub planes: Result<Planes, SampleErrorKind>,
}

/// Calls `visit` for each existing file of a sample, even if others are unreadable. Channels
/// without a file are skipped.
pub fn for_each_file(sample: &Sample, limits: &DecodeLimits, visit: &mut dyn FnMut(SampleFile)) {
    let (mut bytes, mut first) = (Vec::new(), 0);
    while first < sample.files.len() {
        let names = sample.channels_in_file(first);
        let channels = names.len().max(1);
        if let Some(path) = &sample.files[first] {
            let decode = |bytes: &[u8]| {
                let mut data = Vec::new();
                let (width, height) = append(bytes, &names, limits, &mut data)?;
                Ok(Planes {
                    width,
                    height,
                    channels,
                    data,
                })
            };
            let read = LocalFiles.read(path, limits.max_file_bytes, &mut bytes);
            visit(SampleFile {
                path,
                first,
                channels,
                planes: read.and_then(|()| decode(&bytes)),
            });
        }
        first += channels;
    }
}

#[cfg(test)]
mod tests;
