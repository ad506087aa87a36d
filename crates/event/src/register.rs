//! Register an event.

use contract::{EventId, Money, Timestamp, text::Invalid};
use messaging::{Commit, Record};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    Error, Service,
    model::{Event, EventDetails, FieldChange, resolve_price},
};

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RegisterEvent)]
pub struct RegisterInput {
    #[schema(schema_with = web::schema::name)]
    pub name: String,
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub ticket_quantity: i64,
    /// The price of every ticket. If omitted, each buyer names the total amount, as with `buyerNamesPrice`.
    pub price: Option<Money>,
    /// true: there is no price, and each buyer names the total amount. false: there must be one.
    pub buyer_names_price: Option<bool>,
    pub sale_opens_at: Option<Timestamp>,
    /// After `saleOpensAt`.
    pub sale_closes_at: Option<Timestamp>,
}

impl RegisterInput {
    fn details(self) -> Result<EventDetails, Invalid> {
        let price = self.price.map_or(FieldChange::Keep, FieldChange::Set);
        Ok(EventDetails {
            name: self.name,
            ticket_quantity: self.ticket_quantity,
            price: resolve_price(None, price, self.buyer_names_price)?,
            sale_opens_at: self.sale_opens_at,
            sale_closes_at: self.sale_closes_at,
        })
    }
}

impl Service {
    /// Registers an event under a new id. `answer` gets the event as it will be stored, and may add to the Commit what
    /// must become durable with it. The id is taken after validation, so a refusal leaves no gap.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn register<T>(
        &self,
        input: RegisterInput,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        let details = input.details()?;
        details.check_new()?;
        let id = EventId(self.0.store.next_id(Event::TABLE).await?);
        let event = Event::new(id, details, self.0.clock.now());
        self.save(event, answer).await
    }
}
