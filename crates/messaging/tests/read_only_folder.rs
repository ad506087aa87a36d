//! A data folder without write access is read, and no file is created beside it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::{fs, path::Path};

use messaging::{
    Commit, Metrics, Snapshot, Store, Timestamp, dead_letters::DeadLetterRecord, lease::LeaseRecord,
};
use tempfile::TempDir;

const FILE: &str = "messaging.db";

async fn hold(store: &Store, name: &str) {
    let mut commit = Commit::new();
    commit.put(&LeaseRecord {
        name: name.to_owned(),
        holder: "h".to_owned(),
        token: 1,
        expires_at: Timestamp::from_millis(0),
        version: 0,
    });
    store.commit(commit).await.unwrap();
}

fn open(folder: &Path) -> Store {
    Store::open_embedded(folder, messaging::TABLES, Metrics::unregistered()).unwrap()
}

/// A copy of these files where a link that leads nowhere takes the place of SQLite's index, so that not even root can
/// open or create it. Root can still create an empty log before that.
fn read_only(from: &Path, files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    let index = folder.path().join("messaging.db-shm");
    std::os::unix::fs::symlink("/nowhere/at/all", index).unwrap();
    folder
}

fn listing(folder: &Path) -> Vec<(String, u64)> {
    let files = fs::read_dir(folder).unwrap().map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name, file.metadata().unwrap().len())
    });
    let mut files: Vec<_> = files.filter(|(_, len)| *len > 0).collect();
    files.sort();
    files
}

fn leases(folder: &Path) -> Vec<String> {
    let snapshot = Snapshot::open(folder).unwrap();
    let mut names = Vec::new();
    snapshot
        .each(|it: LeaseRecord| names.push(it.name))
        .unwrap();
    snapshot.each(|_: DeadLetterRecord| ()).unwrap();
    names
}

#[tokio::test]
async fn a_backup_without_a_log_is_read_from_a_read_only_folder() {
    let live = tempfile::tempdir().unwrap();
    let store = open(live.path());
    hold(&store, "one").await;
    drop(store);
    let backup = read_only(live.path(), &[FILE]);
    let before = listing(backup.path());

    assert_eq!(leases(backup.path()), ["one"]);
    assert_eq!(listing(backup.path()), before);
}

#[tokio::test]
async fn a_backup_with_a_log_is_read_to_its_last_commit_from_a_read_only_folder() {
    let live = tempfile::tempdir().unwrap();
    let store = open(live.path());
    hold(&store, "one").await;
    hold(&store, "two").await;
    let backup = read_only(live.path(), &[FILE, "messaging.db-wal"]);
    let before = listing(backup.path());

    assert_eq!(leases(backup.path()), ["one", "two"]);
    assert_eq!(listing(backup.path()), before);
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_without_write_permission_is_read() {
    use std::os::unix::fs::PermissionsExt;

    let live = tempfile::tempdir().unwrap();
    let store = open(live.path());
    hold(&store, "one").await;
    drop(store);
    let set = |mode| fs::set_permissions(live.path(), fs::Permissions::from_mode(mode)).unwrap();
    set(0o555);
    let read = leases(live.path());
    set(0o755);
    assert_eq!(read, ["one"]);
}
