//! Read users and their ledgers.

use contract::UserId;
use messaging::{Entry, Find};

use crate::{Error, Service, ledger::LedgerEntry, model::User};

impl Service {
    /// One user.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn show(&self, id: UserId) -> Result<User, Error> {
        self.0.store.load(id).await?.ok_or(Error::NotFound(id))
    }

    /// A user's ledger after the entry `after`, in the order of its changes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn ledger(
        &self,
        id: UserId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, Error> {
        self.show(id).await?;
        let find = Find::all(LedgerEntry::TABLE, limit)
            .equals("user_id", id.0)
            .after(after);
        Ok(self.0.store.find(find).await?)
    }
}
