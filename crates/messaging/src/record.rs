//! Records: rows that are loaded and saved by id, with a version. A record is a `struct` with serde and a [`Table`];
//! every store makes its schema from that table.

use serde::{Serialize, de::DeserializeOwned};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Text,
    Boolean,
    Json,
}

#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
}

impl Column {
    /// The version of a [`Record`].
    pub const VERSION: Self = Self::integer("version");

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            nullable: false,
        }
    }
    #[must_use]
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, Kind::Integer)
    }
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }
    #[must_use]
    pub const fn boolean(name: &'static str) -> Self {
        Self::new(name, Kind::Boolean)
    }
    #[must_use]
    pub const fn json(name: &'static str) -> Self {
        Self::new(name, Kind::Json)
    }
    #[must_use]
    pub const fn null(self) -> Self {
        Self {
            nullable: true,
            ..self
        }
    }
}

/// A table, declared in the SQL that SQLite and PostgreSQL share.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    /// The column by which rows are loaded; unique.
    pub key: &'static str,
    /// `CHECK (…)`, `UNIQUE (…)`.
    pub constraints: &'static [&'static str],
    /// The part after `CREATE INDEX … ON table`, such as `(user_id)` or `(state) WHERE state = 'STARTED'`.
    pub indexes: &'static [&'static str],
}

impl Table {
    pub(crate) fn kind_of(&self, name: &str) -> Kind {
        let column = self.columns.iter().find(|column| column.name == name);
        column.map_or(Kind::Text, |column| column.kind)
    }

    pub(crate) fn is_keyed_by_text(&self) -> bool {
        self.kind_of(self.key) == Kind::Text
    }
}

/// A row with a version. The struct has one field for each column of its table. One is [`Column::VERSION`]: as loaded, or 0
/// for a record that is not stored yet.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    const TABLE: &'static Table;
}

/// A row that is added and never changed: history, ledger.
pub trait Entry: Serialize + DeserializeOwned + Send + Sync + 'static {
    const TABLE: &'static Table;
}

/// The value of a key column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Integer(i64),
    Text(String),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}
impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A reference to one record.
#[derive(Debug, Clone)]
pub struct Ref {
    pub table: &'static Table,
    pub key: Key,
}

impl Ref {
    pub fn to<R: Record>(key: impl Into<Key>) -> Self {
        Self {
            table: R::TABLE,
            key: key.into(),
        }
    }
}
