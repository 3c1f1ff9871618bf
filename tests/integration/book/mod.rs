//! Tests of the documentation: commands run, links have targets, and the lists of commands and
//! config keys agree with the program.

#[cfg(all(feature = "train", feature = "serve", feature = "remote", unix))]
mod blocks;
#[cfg(all(feature = "train", feature = "serve", feature = "remote", unix))]
mod commands;
#[cfg(feature = "train")]
mod config_keys;
mod links;
#[cfg(all(feature = "train", feature = "serve", feature = "remote"))]
mod reference;
#[cfg(all(feature = "train", feature = "serve", feature = "remote", unix))]
mod world;

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file of the repository.
struct Page {
    /// Path from the root of the repository, with `/`.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all Markdown files of the repository, sorted by path.
fn pages() -> Vec<Page> {
    let mut files = Vec::new();
    collect(root(), &mut files);
    files.sort();
    let pages = files.into_iter().map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
        Page {
            name: name.replace('\\', "/"),
            text: fs::read_to_string(&path).unwrap(),
        }
    });
    pages.collect()
}

/// Collects the Markdown files below `folder`, except in hidden folders, `target` and `shared`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let included = !name.starts_with('.') && name != "target" && name != "shared";
        if path.is_dir() && included {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

/// Returns the lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}
