//! The files that a run of scoring writes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::super::{Stage, Ui};
use crate::atomic_file;
use crate::metrics::with_highest_kept;
use crate::score::{
    Decision, Ensemble, Failure, ResultKind, ResultManifest, ResultParts, RunKey, ScoreTable,
    embedding_names, manifest_path, output,
};

/// Where the results go.
pub(super) struct Outputs<'a> {
    pub(super) predictions: &'a Path,
    pub(super) scores: Option<&'a Path>,
    pub(super) embeddings: Option<&'a Path>,
    /// Where the failed samples are listed.
    pub(super) errors: PathBuf,
}

impl Outputs<'_> {
    /// Checks, before any work, that the files can be written and are different ones.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let mut seen: Vec<PathBuf> = Vec::new();
        for (what, path) in [
            ("--out", Some(self.predictions)),
            ("the list of failed samples,", Some(&*self.errors)),
            ("--scores", self.scores),
            ("--embeddings", self.embeddings),
        ] {
            let Some(path) = path else { continue };
            check_output(what, path)?;
            let absolute = absolute(path)?;
            ensure!(
                !seen.contains(&absolute),
                "{what} {} is where another result goes; give it a name of its own",
                path.display()
            );
            seen.push(absolute);
        }
        Ok(())
    }

    /// The results, the predictions last.
    fn files(&self) -> impl Iterator<Item = (ResultKind, &Path)> {
        let files = [
            (ResultKind::Scores, self.scores),
            (ResultKind::Embeddings, self.embeddings),
            (ResultKind::Predictions, Some(self.predictions)),
        ];
        files
            .into_iter()
            .filter_map(|(kind, path)| Some((kind, path?)))
    }

    /// Fetches the results that are in a store, to see whether there is anything left to do.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or does not let us.
    pub(super) fn fetch(&self, stage: &Stage) -> anyhow::Result<()> {
        for (_, path) in self.files() {
            stage.fetch_result(path)?;
            stage.fetch_result(&manifest_path(path))?;
        }
        Ok(())
    }

    /// The samples that failed, if a run of `key` has written all files and they are as it did.
    ///
    /// # Errors
    ///
    /// They are of another run, which would be lost.
    pub(super) fn finished(
        &self,
        key: &RunKey,
        decision: &Decision,
    ) -> anyhow::Result<Option<Vec<Failure>>> {
        let mut failures = Vec::new();
        for (kind, path) in self.files() {
            if !path.exists() {
                return Ok(None);
            }
            let Some(manifest) = ResultManifest::read(path)? else {
                return Ok(None);
            };
            let decided = kind == ResultKind::Predictions;
            let threshold = decided && manifest.decision.as_ref() != Some(decision);
            let other = (manifest.kind != kind).then_some("another kind of result");
            let difference = other
                .or_else(|| manifest.run.difference(key))
                .or_else(|| threshold.then_some("another --threshold or --keep-argmax"));
            if let Some(difference) = difference {
                let shard = manifest.run.shard.map(|shard| format!(" (shard {shard})"));
                bail!(
                    "{} is a finished result{}, of a run with {difference}; give this run a file \
                     of its own, or leave out --resume to write over it",
                    path.display(),
                    shard.unwrap_or_default()
                );
            }
            if atomic_file::sha256_file(path)? != manifest.sha256 {
                return Ok(None);
            }
            failures = manifest.failures;
        }
        Ok(Some(failures))
    }

    /// Writes the list of failed samples.
    pub(super) fn write_errors(&self, failures: &[Failure]) -> anyhow::Result<()> {
        Ok(output::write_errors(&self.errors, failures)?)
    }

    /// Writes the files, each with its manifest; the predictions last, so that where they are the
    /// rest is too. Returns how many samples were scored, but reached no class's threshold.
    pub(super) fn write(
        &self,
        parts: &ResultParts,
        ensemble: &Ensemble,
        decision: &Decision,
    ) -> anyhow::Result<usize> {
        let spec = ensemble.spec();
        let mut without = 0;
        let failures = parts.failures();
        self.write_errors(&failures)?;
        for (kind, path) in self.files() {
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
                        let table = decidable(table?, decision);
                        without += undecided(&table, &decision.thresholds);
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
        Ok(without)
    }

    /// Says where they are.
    pub(super) fn note(&self, stage: &Stage, ui: &Ui) {
        for (what, path) in [
            ("predictions", Some(self.predictions)),
            ("probabilities", self.scores),
            ("embeddings", self.embeddings),
        ] {
            if let Some(path) = path {
                ui.note(&format!("{what}: {}", stage.shown(path)));
            }
        }
    }
}

/// The probabilities as thresholds take them: with the highest one certain, if it is kept.
pub(super) fn decidable(mut table: ScoreTable, decision: &Decision) -> ScoreTable {
    if decision.keep_argmax {
        for row in table.probabilities.iter_mut().flatten() {
            *row = with_highest_kept(row, row.len());
        }
    }
    table
}

/// How many scored samples have no class.
fn undecided(table: &ScoreTable, thresholds: &[f32]) -> usize {
    let none = |row: &&Vec<f32>| row.iter().zip(thresholds).all(|(p, least)| p < least);
    table.probabilities.iter().flatten().filter(none).count()
}

/// Checks that a file can be written at `path` without writing it.
pub(in crate::cli) fn check_output(what: &str, path: &Path) -> anyhow::Result<()> {
    let file = path.display();
    ensure!(
        !path.is_dir(),
        "{what} {file} is a folder; name a file in it"
    );
    // Renaming a finished file to the name of a device or pipe would replace it.
    ensure!(
        !path.exists() || path.is_file(),
        "{what} {file} is not an ordinary file; name one"
    );
    let folder = absolute(path)?
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    ensure!(
        folder.is_dir(),
        "{what} {file}: there is no folder {}; make it first",
        folder.display()
    );
    // The file goes with its handle.
    tempfile::tempfile_in(&folder).with_context(|| format!("{what} {file} cannot be written"))?;
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}
