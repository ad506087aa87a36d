#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`payload`]: [`Payload`], what a message says, with its topic and key
//! - [`message`]: [`Message`], and [`Rejection`] for what cannot be handled
//! - [`record`]: a row with a version, and its table; [`row`]: a struct as a row
//! - [`commit`]: [`Commit`], and why one is refused
//! - [`store`]: where commits become durable; [`sqlite`] is the embedded one, [`postgres`] the distributed one
//! - [`engines`]: [`Engines`], the choice of store and bus, and how to open them; [`kafka_settings`]
//! - [`bus`]: consumer groups and their positions; the store's log, or Kafka (feature `kafka`)
//! - [`backend`]: for a store and a bus that are none of these
//! - [`worker`]: receive, decide, commit, acknowledge
//! - [`runner`]: runs consumers and [`periodic`] tasks, supervised, with a graceful stop
//! - [`coordinator`]: runs `saga` machines on records, messages and timers
//! - [`timers`], [`dead_letters`], [`housekeeping`], [`lease`]: messages at a time, messages that failed, cleaning, fencing
//! - [`id`], [`time`]: ids and instants; [`lenient`]: reads messages of services written by others
//! - [`clock`]: clock and random source, passed in; [`trace`]: the request that caused a message

pub mod backend;
mod backoff;
pub mod bus;
pub mod clock;
pub mod commit;
mod commit_handle;
pub mod coordinator;
pub mod dead_letters;
mod dependency_check;
mod digest;
pub mod engines;
pub mod housekeeping;
pub mod id;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kafka_settings;
pub mod lease;
pub mod lenient;
mod log_cache;
mod log_limit;
pub mod message;
pub mod metrics;
pub mod payload;
pub mod periodic;
pub mod postgres;
mod program;
pub mod record;
mod retry;
pub mod row;
pub mod runner;
pub mod shutdown;
mod snapshot;
mod sql;
pub mod sqlite;
pub mod store;
pub mod time;
pub mod timers;
pub mod trace;
pub mod worker;
pub mod writer_state;

pub use backoff::BackoffPolicy;
pub use bus::{Batch, Bus, Group};
pub use clock::{Clock, Random};
pub use commit::{Commit, CommitError, Fence, StoreError};
pub use commit_handle::{CommitHandle, CommitOutcome, Unresolved};
pub use dead_letters::DeadLetterSettings;
pub use digest::{Digest, sha256};
pub use engines::Engines;
pub use id::{DeadLetterId, SagaId};
#[cfg(feature = "kafka")]
pub use kafka::{Kafka, Relay};
pub use kafka_settings::{KafkaSettings, MessageIdentity};
pub use lease::{Leader, Lease, LeaseManager};
pub use log_cache::StoredMessage;
pub use message::{Message, Rejection};
pub use metrics::Metrics;
pub use payload::{Payload, PayloadRules};
pub use periodic::{Periodic, Schedule, Tick};
pub use postgres::{MessageTable, Postgres, PostgresSettings};
pub use program::{DataFolder, Program};
pub use record::{Column, Entry, Key, Record, Ref, Table};
pub use row::Row;
pub use runner::{Runner, Running, TaskHandles};
pub use shutdown::{Shutdown, ShutdownSwitch};
pub use snapshot::Snapshot;
pub use store::{Find, Store, Submission};
pub use time::Timestamp;
pub use trace::TraceContext;
pub use worker::{Consumer, Decision, Records, Worker, WorkerContext};

/// The tables of this crate's own records; a store is opened with them and the services'.
pub const TABLES: &[&Table] = &[
    <coordinator::SagaRecord as Record>::TABLE,
    <dead_letters::DeadLetterRecord as Record>::TABLE,
    <lease::LeaseRecord as Record>::TABLE,
];
