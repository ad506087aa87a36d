//! What every door of the sandbox works with, and the one way in which a change is made: the payment, the money moved
//! and the webhooks that tell of it, in one transaction.

use contract::Timestamp;
use messaging::Clock;
use rusqlite::{Result, Transaction};

use super::faults::director::Director;
use super::payment::{Change, Payment};
use super::rules;
use super::state::{State, movements, payments};
use super::webhooks::Sender;

pub(super) struct Shared {
    pub authorization: String,
    pub state: State,
    pub clock: Clock,
    pub lenient: bool,
    pub director: Director,
    pub sender: Sender,
}

impl Shared {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads and changes payments in one transaction, every window that has closed by now being closed before.
    ///
    /// # Errors
    /// When the file cannot be read or written; then nothing has changed.
    pub fn within<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T>,
    ) -> Result<T> {
        let now = self.now();
        self.state.within(|transaction| {
            self.close_windows(transaction, now)?;
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
        if let Some(moved) = &change.moved {
            movements::add(transaction, &change.payment, moved, now)?;
        }
        self.sender.announce(transaction, &change.payment, now)
    }

    pub fn close_windows(&self, transaction: &Transaction<'_>, now: Timestamp) -> Result<()> {
        for payment in payments::overdue(transaction, now)? {
            self.apply(transaction, &rules::expired(payment), now)?;
        }
        Ok(())
    }

    /// A payment by its key.
    pub fn find(&self, payment_key: &str) -> Result<Option<Payment>> {
        self.within(|transaction, _| payments::find_by_key(transaction, payment_key))
    }
}
