//! Paged lists: `?after=<the last id seen>&limit=<rows>`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::Problem;

/// Rows of a page if the request sets no limit.
pub const LIMIT_DEFAULT: u32 = 50;
pub const LIMIT_MAX: u32 = 500;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The value of `after` for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page with `limit` rows may be followed by another.
    pub fn new(items: Vec<T>, limit: u32, id: impl Fn(&T) -> String) -> Self {
        let is_full = items.len() >= limit as usize;
        let next = items.last().filter(|_| is_full).map(id);
        Self { items, next }
    }
}

/// # Errors
/// 400 naming `limit` if it is 0 or over [`LIMIT_MAX`].
pub fn limit(requested: Option<u32>) -> Result<u32, Problem> {
    match requested {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(limit) => Err(Problem::invalid(
            "limit",
            format_args!("{limit} is not between 1 and {LIMIT_MAX}"),
        )),
    }
}
