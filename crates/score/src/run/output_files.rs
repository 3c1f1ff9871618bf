//! The files that a run writes.

use std::path::{Path, PathBuf};

use super::{OutputFileError, ScoreConfig, ScoreRunError};
use crate::staging::{StagedFile, StagedFiles};
use crate::{
    Decision, Ensemble, Failure, KeyDifference, ResultKind, ResultManifest, ResultParts, RunKey,
    ScoreTable, embedding_names, manifest_path, output,
};
use rgby_common::atomic_file;
use rgby_metrics::with_highest_kept;

/// Where the results go.
pub(super) struct OutputFiles {
    pub(super) predictions: StagedFile,
    pub(super) scores: Option<StagedFile>,
    pub(super) embeddings: Option<StagedFile>,
    /// List of failed samples.
    pub(super) errors: StagedFile,
}

impl OutputFiles {
    /// Returns the local files to write.
    pub(super) fn stage(
        config: &ScoreConfig,
        staged: &mut StagedFiles,
    ) -> Result<Self, ScoreRunError> {
        let predictions = staged.output("--out", &config.out)?;
        let mut optional = |flag, path: &Option<PathBuf>| {
            let file = path.as_deref().map(|path| staged.output(flag, path));
            file.transpose()
        };
        Ok(Self {
            scores: optional("--scores", &config.scores)?,
            embeddings: optional("--embeddings", &config.embeddings)?,
            errors: predictions.derived(output::errors_path),
            predictions,
        })
    }

    /// Checks, before any work, that the files can be written and are different ones.
    pub(super) fn check(&self) -> Result<(), OutputFileError> {
        let mut seen: Vec<PathBuf> = Vec::new();
        for (what, file) in [
            ("--out", Some(&self.predictions)),
            (ERRORS, Some(&self.errors)),
            ("--scores", self.scores.as_ref()),
            ("--embeddings", self.embeddings.as_ref()),
        ] {
            let Some(file) = file else { continue };
            check_output(what, file)?;
            let absolute = absolute(file.path())?;
            if seen.contains(&absolute) {
                let file = file.name().to_owned();
                return Err(OutputFileError::Duplicate { what, file });
            }
            seen.push(absolute);
        }
        Ok(())
    }

    /// Returns the results, the predictions last.
    fn results(&self) -> impl Iterator<Item = (ResultKind, &StagedFile)> {
        let files = [
            (ResultKind::Scores, self.scores.as_ref()),
            (ResultKind::Embeddings, self.embeddings.as_ref()),
            (ResultKind::Predictions, Some(&self.predictions)),
        ];
        files
            .into_iter()
            .filter_map(|(kind, file)| Some((kind, file?)))
    }

    /// Downloads the remote results of an earlier run, and their manifests.
    ///
    /// # Errors
    ///
    /// The store is not reachable or denies access.
    pub(super) fn fetch(&self, staged: &StagedFiles) -> Result<(), ScoreRunError> {
        for (_, file) in self.results() {
            staged.fetch_result(file)?;
            staged.fetch_result(&file.derived(manifest_path))?;
        }
        Ok(())
    }

    /// Returns the failed samples, if a run of `key` has written all files and they are unchanged.
    ///
    /// # Errors
    ///
    /// A file is the finished result of another run, which would be lost.
    pub(super) fn finished(
        &self,
        key: &RunKey,
        decision: &Decision,
    ) -> Result<Option<Vec<Failure>>, ScoreRunError> {
        let mut failures = Vec::new();
        for (kind, file) in self.results() {
            if !file.path().exists() {
                return Ok(None);
            }
            let Some(manifest) = ResultManifest::read(file)? else {
                return Ok(None);
            };
            let mut differences = manifest.kind_difference(kind);
            differences.extend(manifest.run.differences(key));
            if kind == ResultKind::Predictions {
                differences.extend(Decision::differences(manifest.decision.as_ref(), decision));
            }
            if !differences.is_empty() {
                let shard = manifest.run.shard.map(|shard| format!(" (shard {shard})"));
                return Err(ScoreRunError::Finished {
                    path: file.name().to_owned(),
                    shard: shard.unwrap_or_default(),
                    differences: KeyDifference::describe(&differences, "in that run", "now"),
                });
            }
            if atomic_file::sha256_file(file.path())? != manifest.sha256 {
                return Ok(None);
            }
            failures = manifest.failures;
        }
        Ok(Some(failures))
    }

    /// Writes the list of failed samples.
    pub(super) fn write_errors(&self, failures: &[Failure]) -> Result<(), ScoreRunError> {
        Ok(output::write_errors(self.errors.path(), failures)?)
    }

    /// Writes all files and their manifests, the predictions last: where they exist, so does the
    /// rest. Returns the number of scored samples that reach no threshold.
    pub(super) fn write(
        &self,
        parts: &ResultParts,
        ensemble: &Ensemble,
        decision: &Decision,
    ) -> Result<usize, ScoreRunError> {
        let spec = ensemble.spec();
        let mut unpredicted = 0;
        let failures = parts.failures();
        self.write_errors(&failures)?;
        for (kind, file) in self.results() {
            let path = file.path();
            match kind {
                ResultKind::Scores => {
                    output::write_scores(path, &mut parts.tables(), &spec.classes)?;
                }
                ResultKind::Embeddings => {
                    let names = embedding_names(ensemble.embeddings());
                    output::write_scores(path, &mut parts.embeddings(), &names)?;
                }
                ResultKind::Predictions => {
                    let mut tables = parts.tables().map(|table| {
                        let table = apply_argmax(table?, decision);
                        unpredicted += count_unpredicted(&table, &decision.thresholds);
                        Ok(table)
                    });
                    output::write_predictions(path, &mut tables, &decision.thresholds)?;
                }
            }
            let mut manifest = ResultManifest::of(path, kind, parts.key().clone())?;
            manifest.decision = (kind == ResultKind::Predictions).then(|| decision.clone());
            manifest.failures.clone_from(&failures);
            manifest.write(path)?;
        }
        Ok(unpredicted)
    }
}

/// Name of the list of failed samples in errors.
pub(crate) const ERRORS: &str = "the list of failed samples,";

/// With `keep_argmax`, sets the highest probability of each sample to 1, so that it reaches any
/// threshold.
pub(super) fn apply_argmax(mut table: ScoreTable, decision: &Decision) -> ScoreTable {
    if decision.keep_argmax {
        for row in table.probabilities.iter_mut().flatten() {
            *row = with_highest_kept(row, row.len());
        }
    }
    table
}

/// Counts the scored samples without a predicted class.
fn count_unpredicted(table: &ScoreTable, thresholds: &[f32]) -> usize {
    let is_empty = |row: &&Vec<f32>| row.iter().zip(thresholds).all(|(p, least)| p < least);
    let rows = table.probabilities.iter().flatten();
    rows.filter(is_empty).count()
}

/// Checks that `file` can be written, without writing it. `what` names it in errors.
pub(crate) fn check_output(what: &'static str, file: &StagedFile) -> Result<(), OutputFileError> {
    let (path, name) = (file.path(), || file.name().to_owned());
    if path.is_dir() {
        let file = name();
        return Err(OutputFileError::IsFolder { what, file });
    }
    // Renaming a finished file to the name of a device or pipe would replace it.
    if path.exists() && !path.is_file() {
        let file = name();
        return Err(OutputFileError::NotRegular { what, file });
    }
    let absolute = absolute(path)?;
    let folder = absolute.parent().unwrap_or(Path::new(""));
    if !folder.is_dir() {
        return Err(OutputFileError::NoFolder {
            what,
            file: name(),
            folder: folder.to_owned(),
        });
    }
    // The file is removed when its handle is dropped.
    tempfile::tempfile_in(folder).map_err(|cause| OutputFileError::Unwritable {
        what,
        file: name(),
        cause,
    })?;
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, OutputFileError> {
    std::path::absolute(path).map_err(|cause| OutputFileError::InvalidPath {
        file: path.to_owned(),
        cause,
    })
}
