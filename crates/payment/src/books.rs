//! Payments belong to the gateway that charged them. The store remembers which one that is; another is refused before
//! anything is asked of it, because it would say of these payments what is not so.

use contract::Timestamp;
use messaging::{Commit, CommitError, Record, Store, StoreError};

use crate::{
    Settings,
    gateway::Identity,
    record::{GatewayRecord, PaymentRecord, StrayRecord},
};

/// Tries to write the record against other processes that start at the same moment.
const ROUNDS_MAX: u32 = 8;

/// What is done with payments that do not say yet which gateway they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopt {
    /// They belong to the gateway of the settings from now on.
    Any,
    /// As [`Adopt::Any`], but not to the built-in sandbox, which is only a default.
    OnlyNamed,
}

/// Why the gateway of the settings is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "these payments belong to {books}, and the settings name {named}. Set payment.sandbox, payment.gateway.base_url \
         and payment.gateway.secret_key as they were. If these payments have moved to that gateway, run \
         `boxoffice adopt-gateway` with the new settings"
    )]
    Another { books: Identity, named: Identity },
    #[error(
        "these payments do not say which gateway they belong to, and the settings name none: set payment.sandbox = false, \
         payment.gateway.base_url and payment.gateway.secret_key as `boxoffice serve` has them; or serve them once"
    )]
    Unnamed,
    #[error(
        "these payments belong to {books}, which is another kind of gateway than {named}, and {open} of them are open there \
         (CONFIRMING, or a refund that is REQUESTED): let them end first, with the settings as they were"
    )]
    Open {
        books: Identity,
        named: Identity,
        open: i64,
    },
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Settings {
    /// The gateway that these settings name.
    #[must_use]
    pub fn gateway_identity(&self) -> Identity {
        if self.sandbox {
            Identity::BuiltInSandbox
        } else {
            Identity::of(&self.gateway)
        }
    }
}

/// Makes sure that the payments of `store` belong to the gateway of the settings. The first to ask decides, among
/// processes that start at the same moment too.
///
/// # Errors
/// [`Error::Another`] or [`Error::Unnamed`]: the gateway must not be asked about these payments.
pub async fn claim(
    store: &Store,
    settings: &Settings,
    adopt: Adopt,
    now: Timestamp,
) -> Result<(), Error> {
    let named = settings.gateway_identity();
    for _ in 0..ROUNDS_MAX {
        match known(store).await? {
            Some(known) if known.identity == named => return Ok(()),
            Some(known) => {
                let books = known.identity;
                return Err(Error::Another { books, named });
            }
            None if settings.sandbox && adopt == Adopt::OnlyNamed => return Err(Error::Unnamed),
            None => {}
        }
        let mut commit = Commit::new();
        commit.put(&GatewayRecord::new(named.clone(), now));
        match store.commit(commit).await {
            Ok(()) => return Ok(()),
            // Another process was first: what it wrote counts.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Overloaded.into())
}

/// Makes the payments of `store` belong to the gateway of the settings, whichever it was before; returns that. For a
/// person who knows that it is right: the same gateway at another address, or a store that begins anew.
///
/// # Errors
/// [`Error::Open`] where something is still open at a gateway of another kind; nothing was changed.
pub async fn adopt(
    store: &Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<Option<Identity>, Error> {
    let named = settings.gateway_identity();
    let known = known(store).await?;
    let books = known.as_ref().map(|known| known.identity.clone());
    if let Some(books) = books.clone().filter(|it| !it.is_of_same_kind(&named)) {
        let open = open_at_gateway(store).await?;
        if open > 0 {
            return Err(Error::Open { books, named, open });
        }
    }
    let mut record = GatewayRecord::new(named, now);
    record.version = known.map_or(0, |known| known.version);
    let mut commit = Commit::new();
    commit.put(&record);
    store.commit(commit).await?;
    Ok(books)
}

async fn known(store: &Store) -> Result<Option<GatewayRecord>, StoreError> {
    store.load(GatewayRecord::id()).await
}

/// Payments and stray charges of which the gateway is still asked.
async fn open_at_gateway(store: &Store) -> Result<i64, StoreError> {
    let mut open = 0;
    for (table, column, only) in [
        (PaymentRecord::TABLE, "status", "status = 'CONFIRMING'"),
        (PaymentRecord::TABLE, "refund", "refund = 'REQUESTED'"),
        (StrayRecord::TABLE, "refund", "refund = 'REQUESTED'"),
    ] {
        let counts = store.count_by(table, column, Some(only)).await?;
        open += counts.iter().map(|(_, count)| count).sum::<i64>();
    }
    Ok(open)
}
