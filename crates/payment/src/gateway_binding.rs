//! Binds a store to the gateway that charged its payments. Another gateway must never be asked about them: its answers
//! would be about other charges. The binding is one row of `payment_gateway`.

use contract::Timestamp;
use messaging::{Commit, CommitError, Record, Store, StoreError};

use crate::{
    Settings,
    record::{GatewayRecord, Identity, OrphanChargeRecord, PaymentRecord},
};

/// Tries to commit the binding against other processes that start at the same moment.
const ROUNDS_MAX: u32 = 8;

/// Which gateway an unbound store may be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindPolicy {
    /// The gateway of the settings, whichever it is.
    Any,
    /// The gateway of the settings unless it is the built-in sandbox, which is only a default.
    ConfiguredOnly,
}

/// Why the gateway of the settings is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "these payments belong to {bound}, and the settings name {configured}. Set payment.sandbox, payment.gateway.base_url \
         and payment.gateway.secret_key as they were. If these payments have moved to that gateway, run \
         `boxoffice adopt-gateway` with the new settings"
    )]
    Another {
        bound: Identity,
        configured: Identity,
    },
    #[error(
        "these payments do not say which gateway they belong to, and the settings name none: set payment.sandbox = false, \
         payment.gateway.base_url and payment.gateway.secret_key as `boxoffice serve` has them; or serve them once"
    )]
    Unbound,
    #[error(
        "these payments belong to {bound}, which is another kind of gateway than {configured}, and {open} of them are open there \
         (CONFIRMING, or a refund that is REQUESTED): let them end first, with the settings as they were"
    )]
    Open {
        bound: Identity,
        configured: Identity,
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

/// Binds an unbound store to the gateway of the settings, or verifies the binding. Of several processes that start at
/// the same moment, the first commit decides.
///
/// # Errors
/// [`Error::Another`] or [`Error::Unbound`]: the gateway must not be asked about these payments.
pub async fn bind(
    store: &Store,
    settings: &Settings,
    policy: BindPolicy,
    now: Timestamp,
) -> Result<(), Error> {
    let configured = settings.gateway_identity();
    for _ in 0..ROUNDS_MAX {
        match known(store).await? {
            Some(known) if known.identity == configured => return Ok(()),
            Some(known) => {
                let bound = known.identity;
                return Err(Error::Another { bound, configured });
            }
            None if settings.sandbox && policy == BindPolicy::ConfiguredOnly => {
                return Err(Error::Unbound);
            }
            None => {}
        }
        let mut commit = Commit::new();
        commit.put(&GatewayRecord::new(configured.clone(), now));
        match store.commit(commit).await {
            Ok(()) => return Ok(()),
            // Another process committed first: its binding counts.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Overloaded.into())
}

/// Binds `store` to the gateway of the settings whatever its binding was, and returns the previous one. An operator
/// does this if the same gateway has a new address, or if the store begins anew.
///
/// # Errors
/// [`Error::Open`] if something is still open at a gateway of another kind; nothing is changed.
pub async fn adopt(
    store: &Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<Option<Identity>, Error> {
    let configured = settings.gateway_identity();
    let known = known(store).await?;
    let bound = known.as_ref().map(|known| known.identity.clone());
    if let Some(bound) = bound.clone().filter(|it| !it.is_of_same_kind(&configured)) {
        let open = open_at_gateway(store).await?;
        if open > 0 {
            return Err(Error::Open {
                bound,
                configured,
                open,
            });
        }
    }
    let mut record = GatewayRecord::new(configured, now);
    record.version = known.map_or(0, |known| known.version);
    let mut commit = Commit::new();
    commit.put(&record);
    store.commit(commit).await?;
    Ok(bound)
}

async fn known(store: &Store) -> Result<Option<GatewayRecord>, StoreError> {
    store.load(GatewayRecord::id()).await
}

/// Payments and orphan charges that still need an answer of the gateway.
async fn open_at_gateway(store: &Store) -> Result<i64, StoreError> {
    let mut open = 0;
    for (table, column, only) in [
        (PaymentRecord::TABLE, "status", "status = 'CONFIRMING'"),
        (PaymentRecord::TABLE, "refund", "refund = 'REQUESTED'"),
        (OrphanChargeRecord::TABLE, "refund", "refund = 'REQUESTED'"),
    ] {
        let counts = store.count_by(table, column, Some(only)).await?;
        open += counts.iter().map(|(_, count)| count).sum::<i64>();
    }
    Ok(open)
}
