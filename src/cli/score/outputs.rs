//! The files that a run of scoring writes.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::super::Ui;
use super::super::scorer::Threshold;
use crate::metrics::with_highest_kept;
use crate::score::{Ensemble, Parts, embedding_names, output};

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

    /// Writes the files; the predictions last, so that where they are the rest is too.
    pub(super) fn write(
        &self,
        parts: &Parts,
        ensemble: &Ensemble,
        (threshold, keep_argmax): (Threshold, bool),
    ) -> anyhow::Result<()> {
        let spec = ensemble.spec();
        if let Some(scores) = self.scores {
            output::write_scores(scores, &mut parts.tables(), &spec.classes)?;
        }
        if let Some(embeddings) = self.embeddings {
            let names = embedding_names(ensemble.embeddings());
            output::write_scores(embeddings, &mut parts.embeddings(), &names)?;
        }
        output::write_errors(&self.errors, &parts.failures())?;
        let thresholds = threshold.for_model(spec);
        let mut tables = parts.tables().map(|table| {
            let mut table = table?;
            for row in table
                .probabilities
                .iter_mut()
                .flatten()
                .filter(|_| keep_argmax)
            {
                *row = with_highest_kept(row, row.len());
            }
            Ok(table)
        });
        output::write_predictions(self.predictions, &mut tables, &thresholds)?;
        Ok(())
    }

    /// Says where they are.
    pub(super) fn note(&self, ui: &Ui) {
        for (what, path) in [
            ("predictions", Some(self.predictions)),
            ("probabilities", self.scores),
            ("embeddings", self.embeddings),
        ] {
            if let Some(path) = path {
                ui.note(&format!("{what}: {}", path.display()));
            }
        }
    }
}

/// Checks that a file can be written at `path` without writing it.
fn check_output(what: &str, path: &Path) -> anyhow::Result<()> {
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
