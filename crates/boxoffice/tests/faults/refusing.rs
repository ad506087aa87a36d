//! A store that refuses to write one kind of row: a fault of the disk, as far as the rest can tell.

use rusqlite::Connection;

use crate::{deployment::Site, house::House};

/// Refuses until it is told to end.
pub struct Refusing {
    table: &'static str,
}

impl Refusing {
    /// No row of `table` for which `rule` (of `NEW`) holds is written any more.
    pub async fn rows(house: &House, table: &'static str, rule: &str) -> Self {
        let folder = format!(
            "CREATE TRIGGER refusing BEFORE INSERT ON {table} WHEN {rule}
             BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
        );
        // As in a folder, what is refused is this row and not the server's service.
        let schema = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE 'the disk is broken' USING ERRCODE = 'check_violation';
             END $$;
             CREATE TRIGGER refusing BEFORE INSERT ON {table} FOR EACH ROW WHEN ({rule}) EXECUTE FUNCTION refuse()"
        );
        run(house, &folder, &schema).await;
        Self { table }
    }

    pub async fn messages(house: &House, topic: &str) -> Self {
        Self::rows(house, "message", &format!("NEW.topic = '{topic}'")).await
    }

    pub async fn end(self, house: &House) {
        let schema = format!(
            "DROP TRIGGER refusing ON {}; DROP FUNCTION refuse()",
            self.table
        );
        run(house, "DROP TRIGGER refusing", &schema).await;
    }
}

#[cfg_attr(
    not(feature = "kafka"),
    expect(unused_variables, reason = "only a server has a schema")
)]
async fn run(house: &House, folder: &str, schema: &str) {
    match house.site() {
        Site::Folder => {
            let connection = Connection::open(house.folder().join("boxoffice.db")).unwrap();
            connection.busy_timeout(crate::house::PATIENCE).unwrap();
            connection.execute_batch(folder).unwrap();
        }
        #[cfg(feature = "kafka")]
        Site::Distributed(distributed) => distributed.run(schema).await,
    }
}
