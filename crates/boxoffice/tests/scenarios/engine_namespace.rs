//! A schema in PostgreSQL and a prefix of Kafka's topics and groups, owned by one app at a time.
//!
//! When an app has closed without pending work, its namespace is emptied and reused by the next one, because creating it
//! takes longer than most scenarios. A trigger records every message in a table, since a row leaves the outbox as soon as
//! the brokers have acknowledged it, and scenarios check which messages were published and consumed.

use std::{sync::Mutex, time::Duration};

use boxoffice::{
    audit::books::subscriptions,
    backends::{self, BusBackend, StoreBackend},
    config::Config,
};
use messaging::{Bus, Group, KafkaSettings, PostgresSettings};
use test_support::{Polling, engines, eventually};
use tokio_postgres::{Client, NoTls};

use crate::{deployment::PublishedMessage, test_app::TIMEOUT};

/// Long enough that nothing expires: the scenario's clock is independent of the brokers'.
const RETENTION_SECS: i64 = 1_000_000_000;
const INBOX_SECS: i64 = 2 * RETENTION_SECS;
const POLLING: Polling = Polling {
    interval: Duration::from_millis(10),
    timeout: TIMEOUT,
};
/// Empties every table except those with the same rows for every app.
const EMPTY: &str = "
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
            IF name NOT IN ('migration', 'subscription') THEN EXECUTE format('DELETE FROM %I', name); END IF;
        END LOOP;
    END $$";
/// The subscriptions of groups, and the record of published messages with its trigger.
const LOG: &str = "
    CREATE TABLE subscription (consumer text NOT NULL, topic text NOT NULL);
    CREATE TABLE published (\"offset\" bigint PRIMARY KEY, id text NOT NULL, topic text NOT NULL, key text NOT NULL, reissue json);
    CREATE FUNCTION record_published() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO published VALUES (NEW.\"offset\", NEW.id, NEW.topic, NEW.key, NEW.reissue::json);
        RETURN NULL;
    END $$;
    CREATE TRIGGER published AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION record_published();";
/// Messages that the brokers have not acknowledged, and messages without an inbox mark of a subscribed group.
const UNDER_WAY: &str = "
    SELECT 'unpublished: ' || id FROM message
    UNION ALL
    SELECT subscription.consumer || ': ' || published.id FROM published JOIN subscription USING (topic)
    WHERE (reissue IS NULL OR reissue ->> 'group' = subscription.consumer) AND NOT EXISTS (
        SELECT FROM inbox WHERE inbox.consumer = subscription.consumer
        AND message_id IN (published.id, reissue ->> 'dead_letter' || ':handled'))";

/// The names of namespaces that no app uses.
static FREE_NAMESPACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub struct EngineNamespace {
    /// Name of the schema, and prefix of topics and groups.
    name: String,
    /// A connection apart from the app's own.
    client: Client,
}

impl EngineNamespace {
    pub async fn open(config: &mut Config) -> Self {
        let free = FREE_NAMESPACES.lock().unwrap().pop();
        let (is_new, name) = (
            free.is_none(),
            free.unwrap_or_else(|| engines::unique_name("scenario")),
        );
        configure(config, &name);
        if is_new {
            backends::migrate(config).await.unwrap();
        }
        let connecting = tokio_postgres::connect(engines::postgres_url(), NoTls);
        let (client, connection) = connecting.await.unwrap();
        tokio::spawn(connection);
        let namespace = Self { name, client };
        let path = format!("SET search_path TO {}", namespace.name);
        namespace.run(&path).await;
        if is_new {
            namespace.record_messages().await;
        }
        namespace
    }

    /// Creates the record of published messages.
    async fn record_messages(&self) {
        self.run(LOG).await;
        for Group { name, topics } in subscriptions() {
            let text = "INSERT INTO subscription SELECT $1, unnest($2::text[])";
            self.client.execute(text, &[&name, &topics]).await.unwrap();
        }
    }

    /// Messages that some group has not handled.
    pub async fn under_way(&self) -> Vec<String> {
        let rows = self.client.query(UNDER_WAY, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Everything that was published, in the order of its commits.
    pub async fn published(&self) -> Vec<PublishedMessage> {
        let text = "SELECT id, topic, key FROM published ORDER BY \"offset\"";
        let rows = self.client.query(text, &[]).await.unwrap();
        let published = |row: &tokio_postgres::Row| PublishedMessage {
            id: row.get(0),
            topic: row.get(1),
            key: row.get(2),
        };
        rows.iter().map(published).collect()
    }

    /// Runs SQL in the schema.
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Waits until every published message is acknowledged to the brokers; returns the number of messages.
    pub async fn wait_until_consumed(&self, bus: &Bus) -> usize {
        let published = self.published().await.len();
        let groups = subscriptions().into_iter();
        let consuming = groups.map(async |Group { name, topics }| {
            eventually(POLLING, "every message is acknowledged", async || {
                let is_drained = bus.is_drained(name, topics).await.unwrap();
                if is_drained { Ok(()) } else { Err(name) }
            })
            .await;
        });
        futures::future::join_all(consuming).await;
        published
    }

    /// Empties the namespace for the next app. A namespace with messages after the last acknowledgement, or of a failed
    /// app, is not reused, because the brokers may deliver messages again.
    pub async fn close(self, consumed: usize) {
        if self.published().await.len() == consumed {
            self.run(EMPTY).await;
            FREE_NAMESPACES.lock().unwrap().push(self.name);
        }
    }
}

fn configure(config: &mut Config, name: &str) {
    config.store.backend = StoreBackend::Postgres;
    config.store.postgres = PostgresSettings {
        url: engines::postgres_url().to_owned(),
        schema: name.to_owned(),
        connections_max: 2,
        ..PostgresSettings::default()
    };
    config.bus.backend = BusBackend::Kafka;
    config.bus.kafka = KafkaSettings {
        brokers: engines::kafka_brokers().to_owned(),
        prefix: format!("{name}."),
        partitions: 2,
        retention_secs: RETENTION_SECS,
        commit_interval_millis: 10,
        session_timeout_millis: 6_000,
        ..KafkaSettings::default()
    };
    config.messaging.inbox_retention_secs = Some(INBOX_SECS);
}
