//! Modify an event.

use contract::{EventId, Money, Timestamp, text::Invalid};
use messaging::Commit;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    Error, Service,
    model::{Event, EventDetails, FieldChange, resolve_price},
};

/// The new name and quantity. An omitted price or time stays as it is; `null` removes a time. A reservation keeps the
/// price that the event had when it was made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ModifyEvent)]
pub struct ModifyInput {
    #[schema(schema_with = web::schema::name)]
    pub name: String,
    /// 0 takes the event off sale.
    #[schema(minimum = 0, maximum = 10_000_000)]
    pub ticket_quantity: i64,
    /// The price of every ticket from now on.
    #[serde(default)]
    #[schema(value_type = Money, required = false)]
    pub price: FieldChange<Money>,
    /// true removes the price: each buyer names the total amount. Nothing else removes a price.
    pub buyer_names_price: Option<bool>,
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    pub sale_opens_at: FieldChange<Timestamp>,
    /// After `saleOpensAt`.
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    pub sale_closes_at: FieldChange<Timestamp>,
    /// The version that the client has read.
    pub version: i64,
}

impl ModifyInput {
    fn apply_to(self, event: &Event) -> Result<EventDetails, Invalid> {
        Ok(EventDetails {
            name: self.name,
            ticket_quantity: self.ticket_quantity,
            price: resolve_price(event.price, self.price, self.buyer_names_price)?,
            sale_opens_at: self.sale_opens_at.apply_to(event.sale_opens_at),
            sale_closes_at: self.sale_closes_at.apply_to(event.sale_closes_at),
        })
    }
}

impl Service {
    /// Changes an event if its version is still the one that the client read. `answer` gets the event as it will be
    /// stored, and may add to the Commit what must become durable with it.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::VersionConflict`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn modify<T>(
        &self,
        id: EventId,
        input: ModifyInput,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        let event = self.show(id).await?;
        if event.version != input.version {
            return Err(Error::VersionConflict {
                id,
                stored: event.version,
                expected: input.version,
            });
        }
        let details = input.apply_to(&event)?;
        details.check_change()?;
        let event = event.with_details(details, self.0.clock.now());
        self.save(event, answer).await
    }
}
