//! Results that outlive a killed run: written part by part, each with its hash in a manifest.
//!
//! `FILE.parts/` lies beside the result `FILE` as long as that is not finished. A part holds the
//! results of consecutive samples, probabilities and then embeddings, and begins where the one
//! before it ends; the manifest, replaced as one step, says which parts there are and of what run.
//! What a killed run wrote beyond its manifest counts for nothing.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::output;
use super::{BatchScores, Failure, KeyDifference, RemoteParts, RunKey, ScoreTable, StagedFile};
use rgby_common::atomic_file;
use rgby_imaging::Sample;

/// Name of the file that says which parts there are.
pub const MANIFEST: &str = "manifest.json";
/// A part is written once it is so old, or has all the samples that it may have.
const MOST_TIME: Duration = Duration::from_secs(10);

/// What the manifest says.
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

/// Why parts cannot be written, read or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The file system's error.
    #[error(
        "{0}\nhint: samples scored so far are kept; free disk space, then resume with --resume"
    )]
    Write(io::Error),
    /// There is work that would be lost.
    #[error(
        "{}: holds {done} of {count} samples of an unfinished run\n\
         hint: resume it with --resume, or remove that folder to start over",
        .folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
        /// Samples that are scored.
        done: usize,
        /// Samples of that run.
        count: usize,
    },
    /// The unfinished run is another one.
    #[error(
        "{}: belongs to another run: {differences}\n\
         hint: repeat the command of that run with --resume, or remove that folder to start over",
        .folder.display()
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// Each differing option with both values.
        differences: String,
    },
    /// A part is not as it was written.
    #[error("{}: {reason}\nhint: remove that folder to start over", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a part holds.
#[derive(Debug, Clone, Copy)]
pub struct PartFormat<'a> {
    /// Names of the classes.
    pub classes: &'a [String],
    /// Embeddings of a sample; 0 if there are none.
    pub embeddings: usize,
    /// Samples of a part at most.
    pub part_size: usize,
}

/// Names of the columns of embeddings: f0, f1, …
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
    /// Samples of a part at most.
    part_size: usize,
    /// Names of a part's columns after the id: the classes, then the embeddings.
    columns: Vec<String>,
    /// Results that are in no part yet, a row of all columns each.
    pending: ScoreTable,
    since: Instant,
    copies: Option<Box<dyn RemoteParts>>,
}

/// Whether there are parts of an unfinished run that writes `output`.
#[must_use]
pub fn is_unfinished(output: &Path) -> bool {
    folder_of(output).join(MANIFEST).exists()
}

/// Where the parts of `output` are.
#[must_use]
pub fn folder_of(output: &Path) -> PathBuf {
    output::beside(output, ".parts")
}

/// Removes what a run that was killed while it removed the parts of `output` left of them.
///
/// # Errors
///
/// The file system's.
pub fn remove_leftovers(output: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder_of(output)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl ResultParts {
    /// The parts of the run `key` that writes `output`; with `resume` those that are there. Each is
    /// copied to `copies` too.
    ///
    /// # Errors
    ///
    /// An unfinished run without `resume`, one of something else, or one that is damaged.
    pub fn open(
        output: &StagedFile,
        key: RunKey,
        form: PartFormat,
        resume: bool,
        copies: Option<Box<dyn RemoteParts>>,
    ) -> Result<Self, PartsError> {
        let folder = output.derived(folder_of);
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
            classes: form.classes.len(),
            part_size: form.part_size,
            columns: [form.classes, &embedding_names(form.embeddings)].concat(),
            pending: ScoreTable::default(),
            since: Instant::now(),
            copies,
        };
        parts.write_manifest().map_err(PartsError::Write)?;
        Ok(parts)
    }

    /// What the results depend on.
    #[must_use]
    pub fn key(&self) -> &RunKey {
        &self.manifest.run
    }

    /// Number of samples in parts: the first sample that is still to be scored.
    #[must_use]
    pub fn done(&self) -> usize {
        done(&self.manifest)
    }

    /// Number of failed samples in parts and on their way into one.
    #[must_use]
    pub fn failed(&self) -> usize {
        let written = self.manifest.parts.iter().map(|part| part.failures.len());
        written.sum::<usize>() + self.pending.failures.len()
    }

    /// Takes the results of `samples`, which follow those before; writes a part if one is due.
    ///
    /// # Errors
    ///
    /// The part cannot be written; those before it stay.
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
        let due = self.pending.ids.len() >= self.part_size || self.since.elapsed() >= MOST_TIME;
        if due { self.flush() } else { Ok(()) }
    }

    /// Writes what is in no part yet.
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

    /// The results of each part in turn.
    ///
    /// # Errors
    ///
    /// While iterating: a part is missing or not as it was written.
    pub fn tables(&self) -> impl Iterator<Item = io::Result<ScoreTable>> {
        self.read(0..self.classes)
    }

    /// As [`tables`](Self::tables), with the embeddings in the probabilities' place.
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
                return Err(damaged("is not as it was written".into()));
            }
            let mut table = output::read_scores(&path, columns.clone())
                .map_err(|error| damaged(error.to_string()))?;
            table.failures.clone_from(&part.failures);
            Ok(table)
        });
        tables.map(|table: Result<_, PartsError>| table.map_err(io::Error::other))
    }

    /// The samples that failed, in order.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let failures = self.manifest.parts.iter().map(|part| &part.failures);
        failures.flatten().cloned().collect()
    }

    /// Removes the parts, once the result is written.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn remove(mut self) -> io::Result<()> {
        if let Some(copies) = &mut self.copies {
            copies.remove()?;
        }
        // What no manifest speaks of counts for nothing, so that goes first.
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

/// Each part begins where the one before it ends.
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
