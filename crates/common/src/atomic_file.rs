//! Atomic writes of files, atomic replacement of folders, and file hashes.
//!
//! Every output of rgby gets its final name only when it is complete. After a crash or on a full
//! disk the previous file is still there, and never a partial new one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Writes `bytes` to `path` atomically; see [`write_atomic_with`].
///
/// # Errors
///
/// As [`write_atomic_with`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Writes a file atomically: `content` writes a temporary file in the same folder, which is synced
/// to the disk and then renamed to `path`.
///
/// The folder must exist. A file at `path` is replaced by the rename and is unchanged until then.
///
/// # Errors
///
/// The error of `content` or of the file system, with the path in its message. The temporary file
/// is then removed and `path` is unchanged.
pub fn write_atomic_with<F>(path: &Path, content: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    let write = || {
        if path.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a folder",
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
    write().map_err(|e| with_path("cannot write", path, &e))
}

/// Replaces the folder `target` by the complete folder `staged`.
///
/// Both must be on the same file system; create `staged` beside `target`. An existing `target` is
/// renamed to `<target>.old`, then `staged` is renamed to `target`, then the old folder is removed.
/// A crash between the two renames leaves a complete `<target>.old` and no `target`.
/// [`recover_dir`] repairs that state; call it before reading such a folder.
///
/// # Errors
///
/// The file system's error with the path in its message. `target` is then still the old folder.
pub fn replace_dir(staged: &Path, target: &Path) -> io::Result<()> {
    let swap = || {
        let backup = backup_of(target);
        let had_target = target.try_exists()?;
        if had_target {
            // A crash during an earlier replacement left it; `target` is newer.
            remove_dir_if_present(&backup)?;
            fs::rename(target, &backup)?;
        }
        if let Err(error) = sync_dir(staged).and_then(|()| fs::rename(staged, target)) {
            if had_target {
                fs::rename(&backup, target)?;
            }
            return Err(error);
        }
        sync_dir(parent_of(target))?;
        remove_dir_if_present(&backup)
    };
    swap().map_err(|e| with_path("cannot replace the folder", target, &e))
}

/// Repairs an interrupted [`replace_dir`]: if `target` is missing and `<target>.old` exists,
/// renames the latter to `target`. Returns whether it did.
///
/// # Errors
///
/// The file system's error with the path in its message.
pub fn recover_dir(target: &Path) -> io::Result<bool> {
    let recover = || {
        let backup = backup_of(target);
        if target.try_exists()? || !backup.try_exists()? {
            return Ok(false);
        }
        fs::rename(&backup, target)?;
        sync_dir(parent_of(target))?;
        Ok(true)
    };
    recover().map_err(|e| with_path("cannot recover the folder", target, &e))
}

/// Returns the SHA-256 of a file as 64 lower-case hexadecimal digits. Reads 64 KiB at a time.
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
                Ok(0) => return Ok(hex::encode(hasher.finalize())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    };
    hash().map_err(|e| with_path("cannot read", path, &e))
}

/// Returns a builder of temporary files with ordinary permissions.
///
/// By default the `tempfile` crate makes files readable for the owner only, and the renamed file
/// would keep that mode.
#[must_use]
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

/// Returns the folder that contains `path`; `.` for a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn backup_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().map(OsStr::to_owned).unwrap_or_default();
    name.push(".old");
    target.with_file_name(name)
}

fn remove_dir_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a rename inside `folder` durable. Only Unix can sync a folder.
fn sync_dir(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

fn with_path(what: &str, path: &Path, error: &io::Error) -> io::Error {
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
    fn failed_write_keeps_the_old_file_and_removes_the_temporary_one() {
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
    fn written_files_have_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (atomic, plain) = (dir.path().join("atomic"), dir.path().join("plain"));
        write_atomic(&atomic, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |p| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&atomic), mode(&plain));
    }

    #[test]
    fn rejects_a_folder_as_target() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(dir.path(), b"x").unwrap_err();
        assert!(error.to_string().contains("it is a folder"), "{error}");
    }

    #[test]
    fn replaces_a_folder_and_removes_the_old_one() {
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
    fn recovers_from_a_crash_between_the_renames() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("last");
        fs::create_dir(dir.path().join("last.old")).unwrap();
        assert!(recover_dir(&target).unwrap());
        assert!(target.is_dir());
        assert!(!recover_dir(&target).unwrap());
    }

    #[test]
    fn hashes_files_with_sha256() {
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
