//! Files to merge, with their manifests and ids.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_schema::{DataType, SchemaRef};
use csv::{Position, StringRecord};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::output;
use super::super::{Failure, ResultManifest, StagedFile};
use super::MergeError;
use rgby_common::{atomic_file, catch_panic};

/// Rows between two stored positions in a CSV file.
pub(super) const MARK: usize = 1024;

/// A file to merge.
pub(super) struct MergePart {
    pub(super) file: StagedFile,
    pub(super) manifest: Option<ResultManifest>,
    pub(super) columns: PartColumns,
    /// The id of each row, in order.
    pub(super) ids: Vec<String>,
    /// Positions of every `MARK`th row of a CSV file.
    pub(super) marks: Vec<Position>,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// Columns of a part.
#[derive(PartialEq)]
pub(super) enum PartColumns {
    Csv(StringRecord),
    Parquet(SchemaRef),
}

impl MergePart {
    /// Reads the manifest and the ids, and checks that they agree.
    pub(super) fn open(file: StagedFile) -> Result<Self, MergeError> {
        let manifest = ResultManifest::read(&file)?;
        if let Some(manifest) = &manifest {
            let hash = atomic_file::sha256_file(file.path())
                .map_err(|error| MergeError::part(&file, error))?;
            if hash != manifest.sha256 {
                return Err(changed(
                    &file,
                    "its bytes were changed after it was written",
                ));
            }
        }
        let mut part = if output::is_parquet(file.path()) {
            open_parquet(file)?
        } else {
            open_csv(file)?
        };
        part.manifest = manifest;
        part.check()?;
        Ok(part)
    }

    /// Checks the rows against the manifest.
    fn check(&self) -> Result<(), MergeError> {
        let Some(manifest) = &self.manifest else {
            return Ok(());
        };
        let (expected, found) = (manifest.run.count, self.ids.len());
        if expected != found {
            let reason = format!("has {found} rows, but {expected} in its manifest");
            return Err(changed(&self.file, reason));
        }
        let Some(shard) = manifest.run.shard else {
            return Ok(());
        };
        match self.ids.iter().find(|id| !shard.holds(id)) {
            Some(id) => {
                let reason = format!("the id `{id}` does not belong to shard {shard}");
                Err(changed(&self.file, reason))
            }
            None => Ok(()),
        }
    }

    /// Returns the failed samples: those of the manifest, else of the list beside the file.
    pub(super) fn failures(&self) -> Result<Vec<Failure>, MergeError> {
        if let Some(manifest) = &self.manifest {
            return Ok(manifest.failures.clone());
        }
        let list = self.file.derived(output::errors_path);
        if !list.path().exists() {
            return Ok(Vec::new());
        }
        output::read_errors(list.path()).map_err(|error| MergeError::part(&list, error))
    }

    /// Returns the path or URL to show.
    pub(super) fn name(&self) -> PathBuf {
        self.file.name().to_owned()
    }
}

/// Creates the error for a part that contradicts its manifest.
fn changed(file: &StagedFile, reason: impl Into<String>) -> MergeError {
    MergeError::Changed {
        path: file.name().to_owned(),
        reason: reason.into(),
    }
}

fn open_csv(file: StagedFile) -> Result<MergePart, MergeError> {
    let fault =
        |error: csv::Error| MergeError::part(&file, format!("cannot be read as CSV: {error}"));
    let mut reader = csv::Reader::from_path(file.path()).map_err(fault)?;
    let header = reader.headers().map_err(fault)?.clone();
    if header == output::ERRORS_HEADER[..] {
        let reason = "is a list of failed samples; leave it out, merge finds it by itself";
        return Err(MergeError::part(&file, reason));
    }
    if header.get(0) != Some("Id") || header.len() < 2 {
        let reason = "is not a result of `rgby score`: its header must start with `Id` and have more columns";
        return Err(MergeError::part(&file, reason));
    }
    let (mut ids, mut marks) = (Vec::new(), Vec::new());
    let mut record = StringRecord::new();
    loop {
        let position = reader.position().clone();
        if !reader.read_record(&mut record).map_err(fault)? {
            break;
        }
        if ids.len() % MARK == 0 {
            marks.push(position);
        }
        ids.push(record.get(0).unwrap_or_default().to_owned());
    }
    Ok(MergePart {
        bytes: reader.position().byte(),
        file,
        manifest: None,
        columns: PartColumns::Csv(header),
        ids,
        marks,
    })
}

fn open_parquet(file: StagedFile) -> Result<MergePart, MergeError> {
    // The crate `parquet` panics on some damaged files.
    let damaged = MergeError::part(&file, "cannot be read as Parquet: it is damaged");
    catch_panic::catch(|| read_parquet(file)).unwrap_or(Err(damaged))
}

fn read_parquet(file: StagedFile) -> Result<MergePart, MergeError> {
    let fault = |error: &dyn std::error::Error| {
        MergeError::part(&file, format!("cannot be read as Parquet: {error}"))
    };
    let open = File::open(file.path()).map_err(|error| fault(&error))?;
    let bytes = open.metadata().map_err(|error| fault(&error))?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|error| fault(&error))?;
    let schema = builder.schema().clone();
    let fields = schema.fields();
    let has_id = |field: &arrow_schema::FieldRef| {
        field.name() == "Id" && *field.data_type() == DataType::Utf8
    };
    if !fields.first().is_some_and(has_id) || fields.len() < 2 {
        let reason = "is not a result of `rgby score`: its first column must be the string `Id`";
        return Err(MergeError::part(&file, reason));
    }
    let only_ids = ProjectionMask::leaves(builder.parquet_schema(), [0]);
    let reader = builder.with_projection(only_ids).build();
    let mut ids = Vec::new();
    for batch in reader.map_err(|error| fault(&error))? {
        let batch = batch.map_err(|error| fault(&error))?;
        let column = batch.column(0).as_string::<i32>();
        ids.extend(column.iter().map(|id| id.unwrap_or_default().to_owned()));
    }
    Ok(MergePart {
        file,
        manifest: None,
        columns: PartColumns::Parquet(schema),
        ids,
        marks: Vec::new(),
        bytes,
    })
}

/// Creates the error for a file that was changed during the merge.
pub(super) fn changed_meanwhile(file: &StagedFile) -> io::Error {
    io::Error::other(format!("{file} changed while it was read"))
}
