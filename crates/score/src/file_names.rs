//! Names of the files beside an output.

use std::path::{Path, PathBuf};

/// Name of the manifest, in the folder of the parts and among their copies.
pub const MANIFEST: &str = "manifest.json";

/// Returns the folder of the parts of `output`.
#[must_use]
pub fn parts_folder(output: &Path) -> PathBuf {
    beside(output, ".parts")
}

/// Appends `suffix` to the path `output`.
///
/// Unlike [`Path::with_added_extension`], it never returns `output` itself, even for `..`.
pub(crate) fn beside(output: &Path, suffix: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
