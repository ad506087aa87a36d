//! A store that refuses to write one kind of row: a fault of the disk, as far as the rest can tell.

use rusqlite::Connection;

use crate::house::House;

/// Refuses until it is dropped.
pub struct Refusing {
    connection: Connection,
}

impl Refusing {
    /// No row of `table` for which `rule` (of `NEW`) holds is written any more.
    pub fn rows(house: &House, table: &str, rule: &str) -> Self {
        let connection = Connection::open(house.folder().join("boxoffice.db")).unwrap();
        connection.busy_timeout(crate::house::PATIENCE).unwrap();
        let trigger = format!(
            "CREATE TRIGGER refusing BEFORE INSERT ON {table} WHEN {rule}
             BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
        );
        connection.execute_batch(&trigger).unwrap();
        Self { connection }
    }

    pub fn messages(house: &House, topic: &str) -> Self {
        Self::rows(house, "message", &format!("NEW.topic = '{topic}'"))
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.connection
            .execute_batch("DROP TRIGGER refusing")
            .unwrap();
    }
}
