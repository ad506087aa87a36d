//! A query for rows of a table, and its pages.

use serde_json::Value;

use crate::{
    Record, Row, Store, StoreError, Timestamp,
    record::{Key, Table},
};

/// A query for rows of a table, in the order of their key.
#[derive(Debug, Clone)]
pub struct Find {
    pub table: &'static Table,
    /// Rows whose column has this value.
    pub equals: Option<(&'static str, Value)>,
    /// Rows whose text column, which holds a [`Timestamp`], is at or after the first and before the second.
    pub within: Option<(&'static str, Timestamp, Timestamp)>,
    /// Rows for which this SQL predicate holds. It is fixed in the source.
    pub only: Option<&'static str>,
    /// Rows after this key (before it, if `newest_first`).
    pub after: Option<Key>,
    pub newest_first: bool,
    pub limit: u32,
}

impl Find {
    #[must_use]
    pub const fn all(table: &'static Table, limit: u32) -> Self {
        Self {
            table,
            equals: None,
            within: None,
            only: None,
            after: None,
            newest_first: false,
            limit,
        }
    }

    #[must_use]
    pub fn equals(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.equals = Some((column, value.into()));
        self
    }

    #[must_use]
    pub const fn within(mut self, column: &'static str, from: Timestamp, to: Timestamp) -> Self {
        self.within = Some((column, from, to));
        self
    }

    #[must_use]
    pub const fn only(mut self, predicate: &'static str) -> Self {
        self.only = Some(predicate);
        self
    }

    #[must_use]
    pub fn after(mut self, key: Option<impl Into<Key>>) -> Self {
        self.after = key.map(Into::into);
        self
    }

    #[must_use]
    pub const fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
}

/// What a [`Find`] finds, page by page.
pub struct Pages<'a> {
    store: &'a Store,
    next: Option<Find>,
}

impl<'a> Pages<'a> {
    pub(super) const fn new(store: &'a Store, find: Find) -> Self {
        let next = Some(find);
        Self { store, next }
    }

    /// The next page, of at most the find's limit; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer; calling it again reads the same page.
    pub async fn next<R: Record>(&mut self) -> Result<Option<Vec<R>>, StoreError> {
        let Some(find) = self.next.clone() else {
            return Ok(None);
        };
        let page: Vec<R> = self.store.find(find.clone()).await?;
        let last = page.last().filter(|_| page.len() >= find.limit as usize);
        self.next = last.map(|last| find.after(Row::of(R::TABLE, last).key()));
        Ok(Some(page))
    }
}
