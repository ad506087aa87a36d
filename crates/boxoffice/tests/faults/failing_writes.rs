//! A store that fails to write one kind of row, like a broken disk.

use rusqlite::Connection;

use crate::{deployment::Environment, test_app::TestApp};

/// The writes fail until [`FailingWrites::end`].
pub struct FailingWrites {
    table: &'static str,
}

impl FailingWrites {
    /// Rows of `table` for which the SQL condition `rule` on `NEW` holds can no longer be written.
    pub async fn rows(app: &TestApp, table: &'static str, rule: &str) -> Self {
        let folder = format!(
            "CREATE TRIGGER refusing BEFORE INSERT ON {table} WHEN {rule}
             BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
        );
        // As in SQLite, the row is refused while the server stays usable.
        let schema = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE 'the disk is broken' USING ERRCODE = 'check_violation';
             END $$;
             CREATE TRIGGER refusing BEFORE INSERT ON {table} FOR EACH ROW WHEN ({rule}) EXECUTE FUNCTION refuse()"
        );
        run(app, &folder, &schema).await;
        Self { table }
    }

    pub async fn messages(app: &TestApp, topic: &str) -> Self {
        Self::rows(app, "message", &format!("NEW.topic = '{topic}'")).await
    }

    pub async fn end(self, app: &TestApp) {
        let schema = format!(
            "DROP TRIGGER refusing ON {}; DROP FUNCTION refuse()",
            self.table
        );
        run(app, "DROP TRIGGER refusing", &schema).await;
    }
}

#[cfg_attr(
    not(feature = "kafka"),
    expect(unused_variables, reason = "only PostgreSQL has a schema")
)]
async fn run(app: &TestApp, folder: &str, schema: &str) {
    match app.environment() {
        Environment::Folder => {
            let connection = Connection::open(app.folder().join("boxoffice.db")).unwrap();
            connection.busy_timeout(crate::test_app::TIMEOUT).unwrap();
            connection.execute_batch(folder).unwrap();
        }
        #[cfg(feature = "kafka")]
        Environment::Engines(namespace) => namespace.run(schema).await,
    }
}
