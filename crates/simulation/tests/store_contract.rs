//! The simulated database is a store: what every store promises of records holds on it, as long as nothing strikes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../messaging/tests/common/bank.rs"]
mod bank;
#[path = "../../messaging/tests/store_contract/records.rs"]
mod records;

/// The places of the suite: one simulated database.
mod common {
    use std::{cell::RefCell, sync::Arc};

    use messaging::{Message, Store};
    use simulation::{database::Database, world::World};
    use tokio::runtime::Handle;

    pub use crate::bank::*;

    thread_local! {
        /// The database of the test that runs on this thread.
        static DATABASE: RefCell<Option<Arc<Database>>> = const { RefCell::new(None) };
    }

    pub struct Place {
        database: Arc<Database>,
        _folder: tempfile::TempDir,
    }

    pub fn places() -> Vec<Place> {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(1, &[], false);
        let database = Database::open(&world, "bank", folder.path(), &tables());
        DATABASE.set(Some(Arc::clone(&database)));
        vec![Place {
            database,
            _folder: folder,
        }]
    }

    impl Place {
        /// A connection of a process of its own.
        pub async fn open(&self) -> Store {
            self.database.connect(&Handle::current())
        }
    }

    /// All messages that were committed.
    pub async fn read_all(_: &Store, _: &str, _: &[&str]) -> Vec<Arc<Message>> {
        let database = DATABASE.with_borrow(|database| database.clone().unwrap());
        let stored = database.outbox(0).into_iter();
        stored.map(|stored| stored.message).collect()
    }
}
