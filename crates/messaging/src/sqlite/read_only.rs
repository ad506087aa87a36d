//! A data folder without write access, such as a backup on a read-only medium. A reader of a write-ahead log must create
//! an index beside it, which is impossible there: a file without a log is opened as immutable, a file with one is copied
//! together with its log.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Random, StoreError};

/// The copied file.
const COPY_NAME: &str = "copy.db";

/// A copy in the system's folder for temporary files, removed on drop.
pub(super) struct TemporaryCopy(PathBuf);

impl Drop for TemporaryCopy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove the temporary copy of a data folder");
        }
    }
}

/// Whether a file could not be opened for lack of write access.
pub(super) fn cannot_write(error: &rusqlite::Error) -> bool {
    let codes = [
        ErrorCode::CannotOpen,
        ErrorCode::ReadOnly,
        ErrorCode::PermissionDenied,
    ];
    error
        .sqlite_error_code()
        .is_some_and(|code| codes.contains(&code))
}

/// Opens the file without writing anything beside it.
///
/// # Errors
/// [`StoreError::Unavailable`] if it cannot be read, or its log cannot be copied.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<TemporaryCopy>), StoreError> {
    let log = log_of(path);
    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if !has_log {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(immutable_uri(path), flags);
        return Ok((opened?, None));
    }
    let copied = copy(path, &log).map_err(|error| {
        StoreError::Unavailable(format!(
            "cannot read the write-ahead log of {} without write access, nor copy it to {}: {error}",
            path.display(),
            std::env::temp_dir().display()
        ))
    })?;
    let opened = Connection::open(copied.0.join(COPY_NAME));
    Ok((opened?, Some(copied)))
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// See <https://www.sqlite.org/uri.html>, which also says what to escape.
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            _ => uri.push(character),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

fn copy(path: &Path, log: &Path) -> io::Result<TemporaryCopy> {
    let name = format!(
        "messaging-{}",
        Random::System.uuid(crate::Clock::System.now())
    );
    let copied = TemporaryCopy(std::env::temp_dir().join(name));
    make_private(&copied.0)?;
    let file = copied.0.join(COPY_NAME);
    // `fs::copy` would copy the permissions too, and the copy must be writable.
    io::copy(&mut File::open(log)?, &mut File::create_new(log_of(&file))?)?;
    io::copy(&mut File::open(path)?, &mut File::create_new(&file)?)?;
    Ok(copied)
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let files = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn rows(connection: &Connection) -> i64 {
        let text = "SELECT count(*) FROM it";
        connection.query_row(text, (), |row| row.get(0)).unwrap()
    }

    #[test]
    fn opening_creates_no_file_beside_one_with_or_without_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(COPY_NAME);
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        let text = "CREATE TABLE it (x); INSERT INTO it VALUES (1)";
        writer.execute_batch(text).unwrap();
        fs::remove_file(folder.path().join("copy.db-shm")).unwrap();
        let before = names(folder.path());
        let (with_log, copied) = open(&path).unwrap();
        let copy = copied.as_ref().unwrap().0.clone();
        assert_eq!((rows(&with_log), names(folder.path())), (1, before));
        drop((with_log, copied));
        assert!(!copy.exists());

        drop(writer);
        let _ = fs::remove_file(log_of(&path));
        let before = names(folder.path());
        let text = "VACUUM";
        Connection::open(&path)
            .unwrap()
            .execute_batch(text)
            .unwrap();
        let (without, copied) = open(&path).unwrap();
        assert!(copied.is_none());
        assert_eq!(
            without.query_row("SELECT 1", (), |row| row.get::<_, i64>(0)),
            Ok(1)
        );
        assert_eq!(names(folder.path()), before);
    }

    #[test]
    fn the_uri_of_a_path_escapes_its_special_characters() {
        let path = Path::new("/a b/50%/c?d#e/store.db");
        assert_eq!(
            immutable_uri(path),
            "file:/a b/50%25/c%3fd%23e/store.db?immutable=1"
        );
    }
}
