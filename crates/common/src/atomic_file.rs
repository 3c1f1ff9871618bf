//! Files that are either whole or not there: atomic writes, folder replacement, hashes.
//!
//! Whatever rgby writes appears under its final name only once it is complete, so that a crash
//! or a full disk leaves the previous file, never half of a new one.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Writes `bytes` to `path` as one atomic step; see [`write_atomic_with`].
///
/// # Errors
///
/// As [`write_atomic_with`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Writes a file as one atomic step: `content` writes a sibling temporary file, which is flushed to
/// the disk and then renamed to `path`.
///
/// The folder must exist. A file already at `path` is replaced; until then it stays as it was.
///
/// # Errors
///
/// `content`'s error or the file system's, with the path in its message. The temporary file is
/// removed and `path` is untouched.
pub fn write_atomic_with<F>(path: &Path, content: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    let write = || {
        if path.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a folder, not a file",
            ));
        }
        let folder = parent_of(path);
        let (file, temp) = temp_builder().tempfile_in(folder)?.into_parts();
        let mut writer = BufWriter::new(file);
        content(&mut writer)?;
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        sync_dir(folder)
    };
    write().map_err(|e| named("cannot write", path, &e))
}

/// Puts the finished folder `staged` in the place of `target`.
///
/// `staged` must lie on the same file system (make it a sibling). An existing `target` is first
/// renamed aside to `<target>.old`, then `staged` is renamed to `target`, then the old one is
/// removed. A crash between the two renames leaves no `target` but a complete `<target>.old`:
/// [`recover_dir`] undoes that, and whoever reads such folders calls it first.
///
/// # Errors
///
/// The file system's error with the path in its message; `target` is then still the old folder.
pub fn replace_dir(staged: &Path, target: &Path) -> io::Result<()> {
    let swap = || {
        let aside = aside_of(target);
        let had_target = target.try_exists()?;
        if had_target {
            // Left over from a crash after an earlier replacement: `target` is the newer one.
            remove_dir_if_there(&aside)?;
            fs::rename(target, &aside)?;
        }
        if let Err(error) = sync_dir(staged).and_then(|()| fs::rename(staged, target)) {
            if had_target {
                fs::rename(&aside, target)?;
            }
            return Err(error);
        }
        sync_dir(parent_of(target))?;
        remove_dir_if_there(&aside)
    };
    swap().map_err(|e| named("cannot replace the folder", target, &e))
}

/// Finishes a [`replace_dir`] that a crash cut short: where `target` is missing and
/// `<target>.old` is there, the latter gets its name back. Returns whether it did.
///
/// # Errors
///
/// The file system's error with the path in its message.
pub fn recover_dir(target: &Path) -> io::Result<bool> {
    let recover = || {
        let aside = aside_of(target);
        if target.try_exists()? || !aside.try_exists()? {
            return Ok(false);
        }
        fs::rename(&aside, target)?;
        sync_dir(parent_of(target))?;
        Ok(true)
    };
    recover().map_err(|e| named("cannot recover the folder", target, &e))
}

/// SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits. Reads in pieces of 64 KiB.
///
/// # Errors
///
/// The file system's error with the path in its message.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let hash = || {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hex(&hasher.finalize())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    };
    hash().map_err(|e| named("cannot read", path, &e))
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a `String` does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A builder of temporary files and folders that get ordinary permissions: the `tempfile`
/// crate's default, readable by the owner only, would stay with the file after the rename.
pub fn temp_builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rgby-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

/// The folder that holds `path`; `.` for a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn aside_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().map(OsStr::to_owned).unwrap_or_default();
    name.push(".old");
    target.with_file_name(name)
}

fn remove_dir_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a rename inside `folder` survive a power cut. Only Unix lets a folder be synced.
fn sync_dir(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        })
        .unwrap_err();
        assert!(
            error.to_string().contains("a.txt: the disk is full"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.txt"]);
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_has_the_permissions_of_an_ordinary_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_atomic(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |p| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn writing_over_a_folder_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(dir.path(), b"x").unwrap_err();
        assert!(error.to_string().contains("it is a folder"), "{error}");
    }

    #[test]
    fn a_folder_is_replaced_whole_and_the_old_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (staged, target) = (dir.path().join("staged"), dir.path().join("last"));
        for content in ["one", "two"] {
            fs::create_dir(&staged).unwrap();
            fs::write(staged.join("weights"), content).unwrap();
            replace_dir(&staged, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("weights")).unwrap(), content);
            assert_eq!(names(dir.path()), ["last"]);
        }
        assert!(replace_dir(&staged, &target).is_err(), "nothing is staged");
        assert_eq!(fs::read_to_string(target.join("weights")).unwrap(), "two");
    }

    #[test]
    fn a_crash_between_the_renames_can_be_recovered() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("last");
        fs::create_dir(dir.path().join("last.old")).unwrap();
        assert!(recover_dir(&target).unwrap());
        assert!(target.is_dir());
        assert!(!recover_dir(&target).unwrap());
    }

    #[test]
    fn the_hash_is_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_file(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let missing = sha256_file(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
