//! Weights that an ONNX file keeps in other files (`TensorProto.external_data`).
//!
//! The file is untrusted and names the files to read, so only regular files of one name below the
//! model's own folder are read, reached without any link, and only the bytes that a tensor's shape
//! and type ask for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::tensor::{expected_bytes, holds_data, is_external, type_name};
use super::{GraphError, ModelProto, TensorProto};

/// All external data of a model together, bytes.
const MAX_TOTAL: u64 = 2 << 30;

/// Why the data of a tensor cannot be read from another file.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// An entry that the specification does not know.
    #[error("its entry `{0}` is none of location, offset, length, checksum; re-export the model")]
    UnknownKey(String),
    /// An entry that is there twice.
    #[error("its entry `{0}` is there twice; re-export the model")]
    RepeatedKey(String),
    /// An offset or length that is not a number.
    #[error("its {0} `{1}` is not a number of bytes; re-export the model")]
    Number(&'static str, String),
    /// Offset and length together overflow.
    #[error("offset {0} and length {1} lie beyond any file; re-export the model")]
    Range(u64, u64),
    /// The length is not that of the tensor.
    #[error("it names {said} bytes where shape and type need {needed}; re-export the model")]
    Length {
        /// What the entry says.
        said: u64,
        /// What shape and type need.
        needed: u64,
    },
    /// The element type has no fixed width.
    #[error("element type {0} cannot be kept there; re-export the model in float32")]
    Type(&'static str),
    /// The tensor has data in the model too.
    #[error("the model holds data for it too; re-export the model")]
    Embedded,
    /// No file is named, or one outside the model's folder.
    #[error(
        "only files below the model's own folder are read; move the data beside the model and \
         re-export it with a relative location"
    )]
    Outside,
    /// A symbolic link on the way.
    #[error("it is, or lies behind, a symbolic link; put a copy of the file in its place (cp -L)")]
    SymbolicLink,
    /// A file with several names.
    #[error("it is a hard link: the file has {0} names; put a copy in its place")]
    HardLink(u64),
    /// A folder, device, pipe or socket.
    #[error("it is not a regular file; put the exporter's data file there")]
    NotAFile,
    /// No such file.
    #[error("it is missing; put the exporter's data file there")]
    Missing,
    /// The file ends before the data does.
    #[error("it holds {held} bytes, the data ends at {needed}; export or download it again")]
    Short {
        /// Length of the file.
        held: u64,
        /// Where the data would end.
        needed: u64,
    },
    /// The system would not open or read it.
    #[error("it cannot be read: {0}")]
    Io(std::io::Error),
    /// Links cannot be refused safely here.
    #[error("external data is read on Unix only; re-export the model as one file")]
    Unsupported,
}

/// Where the data of one tensor lies.
struct ByteRange {
    location: String,
    offset: u64,
    length: u64,
}

/// Reads the external data of a model whose file lies in `folder` into its tensors.
///
/// A `checksum` covers a whole file, of which only parts are read, so it is not compared.
///
/// # Errors
///
/// [`GraphError::External`] names the tensor and the file; [`GraphError::Limit`], before anything
/// is read, where all the data together is too large.
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
            .map_err(|source| refuse(tensor, &range.location, source))?;
        tensor.raw_data = data.into();
        tensor.external_data.clear();
        tensor.data_location = <_>::default();
    }
    Ok(())
}

/// The tensors that may lie in other files: initializers and values of `Constant` nodes.
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

/// Checks all that can be told without looking at the file.
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
        .map_err(|source| refuse(tensor, location, source))
}

/// Offset and length of a tensor's data.
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
    let (offset, said) = (number("offset", 0)?, number("length", needed)?);
    if said != needed {
        return Err(ExternalError::Length { said, needed });
    }
    match offset.checked_add(needed) {
        Some(_) => Ok((offset, needed)),
        None => Err(ExternalError::Range(offset, needed)),
    }
}

fn refuse(tensor: &TensorProto, location: &str, source: ExternalError) -> GraphError {
    GraphError::External {
        tensor: tensor.name.clone(),
        location: location.into(),
        source,
    }
}

/// The data files below one folder, of which the last is kept open.
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
        let held = file.metadata().map_err(ExternalError::Io)?.len();
        let needed = range.offset + range.length;
        if held < needed {
            return Err(ExternalError::Short { held, needed });
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

/// The names to go through from the model's folder to a data file.
fn components(location: &str) -> Result<Vec<&OsStr>, ExternalError> {
    // A backslash is a separator to some who will read the same file.
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

/// Opens a data file, one name at a time from folder to folder, so that no link is followed even
/// if one is put in its place meanwhile; then checks what was opened, not what the name said.
#[cfg(unix)]
fn open(folder: &Path, location: &str) -> Result<File, ExternalError> {
    use rustix::fs::{Mode, OFlags, open, openat};
    use std::os::unix::fs::MetadataExt;

    let folder_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // NONBLOCK: opening a pipe must not wait for its writer.
    let file_flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let names = components(location)?;
    let last = names.len() - 1;
    let mut at = open(folder, folder_flags, Mode::empty())
        .map_err(|errno| ExternalError::Io(errno.into()))?;
    for (depth, &name) in names.iter().enumerate() {
        let flags = if depth < last {
            folder_flags
        } else {
            file_flags
        };
        at = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| why_not(&at, name, errno))?;
    }
    let file = File::from(at);
    let metadata = file.metadata().map_err(ExternalError::Io)?;
    if !metadata.is_file() {
        return Err(ExternalError::NotAFile);
    }
    match metadata.nlink() {
        0 | 1 => Ok(file),
        names => Err(ExternalError::HardLink(names)),
    }
}

/// Why a name could not be opened: systems differ in the number they give for a link.
#[cfg(unix)]
fn why_not(folder: &rustix::fd::OwnedFd, name: &OsStr, errno: rustix::io::Errno) -> ExternalError {
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
