//! Reads weights from external files (`TensorProto.external_data`).
//!
//! The model is untrusted and names the files to read. Only regular files with one hard link below
//! the model's own folder are read, never through a symbolic link. Only the bytes that a tensor's
//! shape and type need are read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::tensor::{expected_bytes, holds_data, is_external, type_name};
use super::{GraphError, ModelProto, TensorProto};

/// All external data of a model, bytes.
const MAX_TOTAL: u64 = 2 << 30;

/// Why the external data of a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The entry is not part of the specification.
    #[error(
        "the entry `{0}` is none of location, offset, length, checksum\nhint: re-export the model"
    )]
    UnknownKey(String),
    #[error("the entry `{0}` occurs twice\nhint: re-export the model")]
    RepeatedKey(String),
    /// Offset or length is not an unsigned decimal number: name and text.
    #[error("the {0} `{1}` is not a number of bytes\nhint: re-export the model")]
    Number(&'static str, String),
    /// The sum of offset and length overflows.
    #[error("offset {0} and length {1} lie beyond any file\nhint: re-export the model")]
    Range(u64, u64),
    /// The stated length is not that of the tensor.
    #[error(
        "the length is {stated} bytes, shape and type need {needed}\nhint: re-export the model"
    )]
    Length { stated: u64, needed: u64 },
    /// The element type has no fixed width.
    #[error(
        "element type {0} is not supported in external data\nhint: re-export the model in float32"
    )]
    Type(&'static str),
    /// The tensor has data in the model as well.
    #[error("the model contains data for it as well\nhint: re-export the model")]
    Embedded,
    /// The location is empty or outside the model's folder.
    #[error(
        "only files below the model's own folder are read\nhint: move the data beside the model \
         and re-export it with a relative location"
    )]
    Outside,
    /// The file or one of its folders is a symbolic link.
    #[error("the path contains a symbolic link\nhint: replace the link by a copy (cp -L)")]
    SymbolicLink,
    #[error("the file is a hard link with {0} names\nhint: replace it by a copy")]
    HardLink(u64),
    /// A folder, device, pipe or socket.
    #[error("not a regular file\nhint: put the exporter's data file there")]
    NotAFile,
    #[error("the file is missing\nhint: put the exporter's data file there")]
    Missing,
    /// The file ends before the data does.
    #[error(
        "the file has {length} bytes, the data ends at {end}\nhint: export or download it again"
    )]
    Short { length: u64, end: u64 },
    #[error("{0}")]
    Io(std::io::Error),
    /// The platform has no way to refuse links without a race.
    #[error("external data is supported on Unix only\nhint: re-export the model as one file")]
    Unsupported,
}

/// Location of one tensor's data.
struct ByteRange {
    location: String,
    offset: u64,
    length: u64,
}

/// Reads the external data of a model in `folder` into its tensors.
///
/// A `checksum` is not compared: it covers a whole file, of which only parts are read.
///
/// # Errors
///
/// [`GraphError::External`] names the tensor and the file. [`GraphError::Limit`] is returned before
/// any data is read.
pub(super) fn load(model: &mut ModelProto, folder: &Path) -> Result<(), GraphError> {
    let mut ranges = Vec::new();
    let mut total = 0_u64;
    for tensor in tensors(model).filter(|tensor| is_external(tensor)) {
        let range = plan(tensor)?;
        total = total.saturating_add(range.length);
        ranges.push(range);
    }
    if total > MAX_TOTAL {
        return Err(GraphError::Limit {
            what: "bytes of external data",
            found: total,
            limit: MAX_TOTAL,
        });
    }
    let mut files = ExternalFiles { folder, last: None };
    let external = tensors(model).filter(|tensor| is_external(tensor));
    for (tensor, range) in external.zip(&ranges) {
        let data = files
            .read(range)
            .map_err(|cause| refuse(tensor, &range.location, cause))?;
        tensor.raw_data = data.into();
        tensor.external_data.clear();
        tensor.data_location = <_>::default();
    }
    Ok(())
}

/// Tensors that may be stored externally: initializers and values of `Constant` nodes.
fn tensors(model: &mut ModelProto) -> impl Iterator<Item = &mut TensorProto> {
    let graph = model.graph.mut_or_insert_default();
    let constants = graph
        .node
        .iter_mut()
        .filter(|node| node.op_type == "Constant")
        .flat_map(|node| &mut node.attribute)
        .filter_map(|attribute| attribute.t.as_mut());
    graph.initializer.iter_mut().chain(constants)
}

/// Validates the entries of a tensor without opening the file.
fn plan(tensor: &TensorProto) -> Result<ByteRange, GraphError> {
    let needed = expected_bytes(tensor)?.map(|bytes| bytes as u64);
    let location = tensor.external_data.iter().find(|e| e.key == "location");
    let location = location.map_or("", |entry| entry.value.as_str());
    extent(tensor, needed)
        .map(|(offset, length)| ByteRange {
            location: location.into(),
            offset,
            length,
        })
        .map_err(|cause| refuse(tensor, location, cause))
}

/// Returns offset and length of a tensor's data.
fn extent(tensor: &TensorProto, needed: Option<u64>) -> Result<(u64, u64), ExternalError> {
    const KEYS: [&str; 4] = ["location", "offset", "length", "checksum"];
    let mut entries = HashMap::new();
    for entry in &tensor.external_data {
        let key = entry.key.as_str();
        if !KEYS.contains(&key) {
            return Err(ExternalError::UnknownKey(key.into()));
        }
        if entries.insert(key, entry.value.as_str()).is_some() {
            return Err(ExternalError::RepeatedKey(key.into()));
        }
    }
    let number = |key, default| {
        let Some(text) = entries.get(key) else {
            return Ok(default);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u64>().ok().filter(|_| digits);
        value.ok_or_else(|| ExternalError::Number(key, (*text).to_owned()))
    };
    if holds_data(tensor) {
        return Err(ExternalError::Embedded);
    }
    let needed = needed.ok_or_else(|| ExternalError::Type(type_name(tensor)))?;
    let (offset, stated) = (number("offset", 0)?, number("length", needed)?);
    if stated != needed {
        return Err(ExternalError::Length { stated, needed });
    }
    match offset.checked_add(needed) {
        Some(_) => Ok((offset, needed)),
        None => Err(ExternalError::Range(offset, needed)),
    }
}

fn refuse(tensor: &TensorProto, location: &str, cause: ExternalError) -> GraphError {
    GraphError::External {
        tensor: tensor.name.clone(),
        location: location.into(),
        cause,
    }
}

/// Opens data files below a folder and keeps the last one open.
struct ExternalFiles<'a> {
    folder: &'a Path,
    last: Option<(String, File)>,
}

impl ExternalFiles<'_> {
    fn read(&mut self, range: &ByteRange) -> Result<Vec<u8>, ExternalError> {
        let file = match self.last.take() {
            Some((location, file)) if location == range.location => file,
            _ => open(self.folder, &range.location)?,
        };
        let length = file.metadata().map_err(ExternalError::Io)?.len();
        let end = range.offset + range.length;
        if length < end {
            return Err(ExternalError::Short { length, end });
        }
        let mut data = vec![0; range.length as usize];
        read_at(&file, &mut data, range.offset).map_err(ExternalError::Io)?;
        self.last = Some((range.location.clone(), file));
        Ok(data)
    }
}

fn read_at(mut file: &File, data: &mut [u8], offset: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(data)
}

/// Splits a location into names below the model's folder.
fn components(location: &str) -> Result<Vec<&OsStr>, ExternalError> {
    // A backslash is a separator on other platforms.
    if location.contains(['\\', '\0']) {
        return Err(ExternalError::Outside);
    }
    let names = Path::new(location)
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            _ => Err(ExternalError::Outside),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(ExternalError::Outside);
    }
    Ok(names)
}

/// Opens a data file component by component, so that no link is followed even if one appears
/// meanwhile. The checks apply to the opened file, not to its name.
#[cfg(unix)]
fn open(folder: &Path, location: &str) -> Result<File, ExternalError> {
    use rustix::fs::{Mode, OFlags, open, openat};
    use std::os::unix::fs::MetadataExt;

    let folder_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // NONBLOCK: opening a pipe must not wait for its writer.
    let file_flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let names = components(location)?;
    let last = names.len() - 1;
    let mut folder = open(folder, folder_flags, Mode::empty())
        .map_err(|errno| ExternalError::Io(errno.into()))?;
    for (depth, &name) in names.iter().enumerate() {
        let flags = if depth < last {
            folder_flags
        } else {
            file_flags
        };
        folder = openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| open_error(&folder, name, errno))?;
    }
    let file = File::from(folder);
    let metadata = file.metadata().map_err(ExternalError::Io)?;
    if !metadata.is_file() {
        return Err(ExternalError::NotAFile);
    }
    match metadata.nlink() {
        0 | 1 => Ok(file),
        names => Err(ExternalError::HardLink(names)),
    }
}

/// Returns why a name could not be opened. Systems return different error numbers for links.
#[cfg(unix)]
fn open_error(
    folder: &rustix::fd::OwnedFd,
    name: &OsStr,
    errno: rustix::io::Errno,
) -> ExternalError {
    use rustix::fs::{AtFlags, FileType, statat};

    if errno == rustix::io::Errno::NOENT {
        return ExternalError::Missing;
    }
    let kind = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Symlink) => ExternalError::SymbolicLink,
        Ok(FileType::RegularFile | FileType::Directory) if errno != rustix::io::Errno::NOTDIR => {
            ExternalError::Io(errno.into())
        }
        Ok(_) => ExternalError::NotAFile,
        Err(_) => ExternalError::Io(errno.into()),
    }
}

#[cfg(not(unix))]
fn open(_: &Path, location: &str) -> Result<File, ExternalError> {
    components(location)?;
    Err(ExternalError::Unsupported)
}
