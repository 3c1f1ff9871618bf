//! A batch of samples from a stream.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};

use super::StreamError;
use super::columns::{ColumnKind, RequestColumns, bytes, text};
use super::error::StreamPosition;
use rgby_imaging::{ChannelSelector, FileSource, LocalFiles, Sample, SampleErrorKind};

/// The samples of one record batch, and the source of their files.
#[derive(Debug)]
pub struct Request {
    batch: RecordBatch,
    columns: RequestColumns,
    /// Names of the stains, in the order of a sample's files.
    stains: Arc<[String]>,
}

impl Request {
    /// Checks that each sample has an id.
    pub(super) fn new(
        batch: RecordBatch,
        columns: RequestColumns,
        stains: Arc<[String]>,
        place: StreamPosition,
    ) -> Result<Self, StreamError> {
        let ids = batch.column(columns.id);
        if let Some(row) = (0..ids.len()).find(|row| ids.is_null(*row)) {
            return Err(StreamError::NoId { place, row });
        }
        Ok(Self {
            batch,
            columns,
            stains,
        })
    }

    /// Returns the number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the ids of the samples.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        // `new` checked that no id is null.
        (0..self.len()).map(|row| text(&self.batch, self.columns.id, row).unwrap_or_default())
    }

    /// Returns the samples. Their files must be read from this request, as a [`FileSource`].
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        // Every file is one channel, whatever it is called.
        let picks: Arc<[ChannelSelector]> = self
            .stains
            .iter()
            .map(|_| ChannelSelector::WholeFile)
            .collect();
        let rows = self.ids().enumerate();
        rows.map(|(row, id)| Sample {
            id: id.to_owned(),
            channels: self.stains.clone(),
            files: (0..self.stains.len())
                .map(|stain| self.file(row, stain))
                .collect(),
            picks: picks.clone(),
        })
        .collect()
    }

    /// Returns the name of a file in this source.
    fn file(&self, row: usize, stain: usize) -> Option<PathBuf> {
        let column = self.columns.stains[stain];
        match self.columns.kind {
            ColumnKind::Paths => text(&self.batch, column, row).map(PathBuf::from),
            ColumnKind::Bytes if self.batch.column(column).is_null(row) => None,
            ColumnKind::Bytes => Some(format!("{} of row {row}", self.stains[stain]).into()),
        }
    }

    /// Returns the bytes of a file by its name from [`file`](Self::file).
    fn bytes(&self, name: &Path) -> Option<&[u8]> {
        let (stain, row) = name.to_str()?.rsplit_once(" of row ")?;
        let stain = self.stains.iter().position(|known| known == stain)?;
        bytes(&self.batch, self.columns.stains[stain], row.parse().ok()?)
    }
}

impl FileSource for Request {
    fn read(&self, path: &Path, limit: u64, out: &mut Vec<u8>) -> Result<(), SampleErrorKind> {
        match self.columns.kind {
            ColumnKind::Paths => LocalFiles.read(path, limit, out),
            ColumnKind::Bytes => {
                let file = self.bytes(path).ok_or(io::ErrorKind::NotFound);
                let file = file.map_err(io::Error::from)?;
                let most =
                    usize::try_from(limit).map_or(usize::MAX, |limit| limit.saturating_add(1));
                out.clear();
                out.extend_from_slice(&file[..file.len().min(most)]);
                Ok(())
            }
        }
    }
}
