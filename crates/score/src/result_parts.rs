//! Results of an unfinished run, kept in parts so that a killed run can be resumed.
//!
//! The folder `FILE.parts/` exists beside the result `FILE` until that is finished. A part contains
//! the results of consecutive samples, probabilities and then embeddings, and starts where the
//! previous one ends. The manifest, replaced atomically, lists the parts with their hashes, and
//! identifies the run. Files that the manifest does not list are ignored.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::output;
use super::{
    BatchScores, Failure, KeyDifference, MANIFEST, RemoteParts, RunKey, ScoreTable, StagedFile,
    parts_folder,
};
use rgby_common::atomic_file;
use rgby_imaging::Sample;

/// A part is written when it is this old, or full.
const MAX_AGE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartsManifest {
    run: RunKey,
    parts: Vec<ResultPart>,
}

/// Results of consecutive samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultPart {
    file: String,
    first: usize,
    samples: usize,
    sha256: String,
    failures: Vec<Failure>,
}

/// Why parts cannot be written, read or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    #[error(
        "{0}\nhint: samples scored so far are kept; free disk space, then resume with --resume"
    )]
    Write(io::Error),
    /// Results of an unfinished run would be lost.
    #[error(
        "{}: holds {done} of {count} samples of an unfinished run\n\
         hint: resume it with --resume, or remove that folder to start over",
        .folder.display()
    )]
    Unfinished {
        folder: PathBuf,
        /// Scored samples.
        done: usize,
        /// Samples of the run.
        count: usize,
    },
    /// The parts belong to another run.
    #[error(
        "{}: belongs to another run: {differences}\n\
         hint: repeat the command of that run with --resume, or remove that folder to start over",
        .folder.display()
    )]
    Other {
        folder: PathBuf,
        /// Each differing option with both values.
        differences: String,
    },
    #[error("{}: {reason}\nhint: remove that folder to start over", .path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// Columns and size of parts.
#[derive(Debug, Clone, Copy)]
pub struct PartFormat<'a> {
    pub classes: &'a [String],
    /// Embeddings per sample; 0 without embeddings.
    pub embeddings: usize,
    /// Maximum number of samples per part.
    pub part_size: usize,
}

/// Returns the names of the columns of embeddings: f0, f1, …
#[must_use]
pub fn embedding_names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("f{number}")).collect()
}

/// The parts of a run.
#[derive(Debug)]
pub struct ResultParts {
    folder: StagedFile,
    manifest: PartsManifest,
    /// Number of classes.
    classes: usize,
    /// Maximum number of samples per part.
    part_size: usize,
    /// Names of the columns after the id: classes, then embeddings.
    columns: Vec<String>,
    /// Results that are in no part yet; each row has all columns.
    pending: ScoreTable,
    since: Instant,
    copies: Option<Box<dyn RemoteParts>>,
}

/// Whether an unfinished run that writes `output` exists.
#[must_use]
pub fn is_unfinished(output: &Path) -> bool {
    parts_folder(output).join(MANIFEST).exists()
}

/// Removes parts of `output` that remain if a run was killed while it removed them.
///
/// # Errors
///
/// The error of the file system.
pub fn remove_leftovers(output: &Path) -> io::Result<()> {
    match fs::remove_dir_all(parts_folder(output)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl ResultParts {
    /// Opens the parts of the run `key` that writes `output`; with `resume` it keeps existing
    /// parts. New parts are copied to `copies`, too.
    ///
    /// # Errors
    ///
    /// There is an unfinished run but no `resume`, or the unfinished run is another one or damaged.
    pub fn open(
        output: &StagedFile,
        key: RunKey,
        format: PartFormat,
        resume: bool,
        copies: Option<Box<dyn RemoteParts>>,
    ) -> Result<Self, PartsError> {
        let folder = output.derived(parts_folder);
        let mut manifest = PartsManifest {
            run: key,
            parts: Vec::new(),
        };
        match read_manifest(&folder)? {
            Some(found) if resume => {
                check_same(&folder, &found.run, &manifest.run)?;
                check_chain(&folder, &found)?;
                manifest = found;
            }
            Some(found) if !found.parts.is_empty() => {
                return Err(PartsError::Unfinished {
                    folder: folder.name().to_owned(),
                    done: done(&found),
                    count: found.run.count,
                });
            }
            _ => {}
        }
        fs::create_dir_all(folder.path()).map_err(PartsError::Write)?;
        let mut parts = Self {
            folder,
            manifest,
            classes: format.classes.len(),
            part_size: format.part_size,
            columns: [format.classes, &embedding_names(format.embeddings)].concat(),
            pending: ScoreTable::default(),
            since: Instant::now(),
            copies,
        };
        parts.write_manifest().map_err(PartsError::Write)?;
        Ok(parts)
    }

    /// Returns the identity of the run.
    #[must_use]
    pub fn key(&self) -> &RunKey {
        &self.manifest.run
    }

    /// Returns the number of samples in parts, which is the index of the next sample to score.
    #[must_use]
    pub fn done(&self) -> usize {
        done(&self.manifest)
    }

    /// Returns the number of failed samples.
    #[must_use]
    pub fn failed(&self) -> usize {
        let written = self.manifest.parts.iter().map(|part| part.failures.len());
        written.sum::<usize>() + self.pending.failures.len()
    }

    /// Appends the results of `samples`; writes a part if one is due.
    ///
    /// # Errors
    ///
    /// The part cannot be written; earlier parts are kept.
    pub fn push(&mut self, samples: &[Sample], batch: BatchScores) -> io::Result<()> {
        let ids = samples.iter().map(|sample| sample.id.clone());
        self.pending.ids.extend(ids);
        let mut rows = batch.probabilities;
        for (row, more) in rows.iter_mut().zip(batch.embeddings) {
            if let (Some(row), Some(more)) = (row, more) {
                row.extend(more);
            }
        }
        self.pending.probabilities.extend(rows);
        self.pending.failures.extend(batch.failures);
        let due = self.pending.ids.len() >= self.part_size || self.since.elapsed() >= MAX_AGE;
        if due { self.flush() } else { Ok(()) }
    }

    /// Writes a part of the pending results.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn flush(&mut self) -> io::Result<()> {
        self.since = Instant::now();
        if self.pending.ids.is_empty() {
            return Ok(());
        }
        let first = self.done();
        let file = format!("{first:012}.csv");
        let path = self.folder.path().join(&file);
        let table = std::mem::take(&mut self.pending);
        let failures = table.failures.clone();
        let samples = table.ids.len();
        output::write_scores(&path, &mut [Ok(table)].into_iter(), &self.columns)
            .map_err(io::Error::other)?;
        let sha256 = atomic_file::sha256_file(&path)?;
        if let Some(copies) = &mut self.copies {
            copies.part(&path, &sha256)?;
        }
        self.manifest.parts.push(ResultPart {
            file,
            first,
            samples,
            sha256,
            failures,
        });
        self.write_manifest()
    }

    /// Reads the probabilities of each part in order.
    ///
    /// # Errors
    ///
    /// While iterating: a part is missing or was changed.
    pub fn tables(&self) -> impl Iterator<Item = io::Result<ScoreTable>> {
        self.read(0..self.classes)
    }

    /// As [`tables`](Self::tables), with embeddings instead of probabilities.
    ///
    /// # Errors
    ///
    /// As [`tables`](Self::tables).
    pub fn embeddings(&self) -> impl Iterator<Item = io::Result<ScoreTable>> {
        self.read(self.classes..self.columns.len())
    }

    fn read(&self, columns: Range<usize>) -> impl Iterator<Item = io::Result<ScoreTable>> {
        let tables = self.manifest.parts.iter().map(move |part| {
            let path = self.folder.path().join(&part.file);
            let damaged = |reason: String| PartsError::Damaged {
                path: self.folder.name().join(&part.file),
                reason,
            };
            let hash =
                atomic_file::sha256_file(&path).map_err(|error| damaged(error.to_string()))?;
            if hash != part.sha256 {
                return Err(damaged("was changed after it was written".into()));
            }
            let mut table = output::read_scores(&path, columns.clone())
                .map_err(|error| damaged(error.to_string()))?;
            table.failures.clone_from(&part.failures);
            Ok(table)
        });
        tables.map(|table: Result<_, PartsError>| table.map_err(io::Error::other))
    }

    /// Returns the failed samples, in order.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let failures = self.manifest.parts.iter().map(|part| &part.failures);
        failures.flatten().cloned().collect()
    }

    /// Removes the parts.
    ///
    /// # Errors
    ///
    /// The error of the file system.
    pub fn remove(mut self) -> io::Result<()> {
        if let Some(copies) = &mut self.copies {
            copies.remove()?;
        }
        // Without a manifest, parts are ignored, so the manifest is removed first.
        fs::remove_file(self.folder.path().join(MANIFEST))?;
        fs::remove_dir_all(self.folder.path())
    }

    fn write_manifest(&mut self) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.manifest)?;
        atomic_file::write_atomic(&self.folder.path().join(MANIFEST), text.as_bytes())?;
        match &mut self.copies {
            Some(copies) => copies.manifest(text.as_bytes()),
            None => Ok(()),
        }
    }
}

fn done(manifest: &PartsManifest) -> usize {
    manifest.parts.iter().map(|part| part.samples).sum()
}

fn read_manifest(folder: &StagedFile) -> Result<Option<PartsManifest>, PartsError> {
    let damaged = |reason: String| PartsError::Damaged {
        path: folder.name().join(MANIFEST),
        reason,
    };
    match fs::read(folder.path().join(MANIFEST)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| damaged(format!("cannot be read: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}

fn check_same(folder: &StagedFile, found: &RunKey, wanted: &RunKey) -> Result<(), PartsError> {
    let differences = found.differences(wanted);
    if differences.is_empty() {
        return Ok(());
    }
    Err(PartsError::Other {
        folder: folder.name().to_owned(),
        differences: KeyDifference::describe(&differences, "in the unfinished run", "now"),
    })
}

/// Checks that each part starts where the previous one ends.
fn check_chain(folder: &StagedFile, manifest: &PartsManifest) -> Result<(), PartsError> {
    let mut next = 0;
    for part in &manifest.parts {
        let plain = Path::new(&part.file).file_name() == Some(part.file.as_ref());
        if part.first != next || !plain {
            return Err(PartsError::Damaged {
                path: folder.name().join(MANIFEST),
                reason: format!("part `{}` does not follow the one before it", part.file),
            });
        }
        next += part.samples;
    }
    Ok(())
}
