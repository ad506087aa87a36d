//! What the library cannot know of the program that uses it: how it is called, and what its errors advise.

use std::path::{Path, PathBuf};

/// A program on this library. All of its processes, of every version, must have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Names the files in a data folder, and clients, sessions and locks at the servers.
    pub name: &'static str,
    /// What to do if a data folder cannot be created.
    pub folder_advice: &'static str,
    /// What to do if a schema was not migrated.
    pub migrate_advice: &'static str,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            name: "messaging",
            folder_advice: "choose another one",
            migrate_advice: "call `Postgres::migrate`",
        }
    }
}

/// The folder of an embedded store.
#[derive(Debug, Clone)]
pub struct DataFolder {
    pub path: PathBuf,
    pub program: Program,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for DataFolder {
    fn from(path: &P) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            program: Program::default(),
        }
    }
}
