//! The state that all routes share, and how a change is committed: the payment, the money moved and the webhooks about
//! it in one transaction.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Result, Transaction};

use super::clock::Clock;
use super::faults::injector::FaultInjector;
use super::payment::Change;
use super::rules;
use super::state::{State, movements, payments};
use super::webhooks::WebhookSender;

pub(super) struct Shared {
    pub authorization: String,
    pub state: State,
    pub clock: Arc<dyn Clock>,
    pub lenient: bool,
    pub faults: FaultInjector,
    pub sender: WebhookSender,
}

impl Shared {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads and changes payments in one transaction, after overdue payments have expired.
    ///
    /// # Errors
    /// If the file cannot be read or written; nothing is changed.
    pub fn within<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T>,
    ) -> Result<T> {
        let now = self.now();
        self.state.within(|transaction| {
            self.expire_overdue(transaction, now)?;
            work(transaction, now)
        })
    }

    pub fn apply(
        &self,
        transaction: &Transaction<'_>,
        change: &Change,
        now: Timestamp,
    ) -> Result<()> {
        payments::put(transaction, &change.payment)?;
        if let Some(amount) = change.moved {
            movements::add(transaction, &change.payment, amount, now)?;
        }
        self.sender.announce(transaction, &change.payment, now)
    }

    pub fn expire_overdue(&self, transaction: &Transaction<'_>, now: Timestamp) -> Result<()> {
        for payment in payments::overdue(transaction, now)? {
            self.apply(transaction, &rules::expired(payment), now)?;
        }
        Ok(())
    }
}
