//! The consumers: one group advances the sagas, one owns the stock.

mod stock;

use std::collections::HashSet;

use contract::{
    Payload, TicketId, Timestamp,
    ticketing::{Cancel, Expire, Process},
};
use futures::future::{BoxFuture, try_join_all};
use messaging::{
    Consumer, Decision, Group, Message, Records, Ref, Rejection, StoreError,
    coordinator::{SagaMessage, SagaRecord},
};

use crate::{
    Service, metrics::SagaLabel, model::Purchase, progress, reservations::Reservation, sagas::Sagas,
};

pub use stock::{STOCK_GROUP, StockConsumer};

/// Advances the sagas.
pub struct SagaConsumer(pub Service);

/// A parsed message of the saga group.
pub enum SagaInput {
    Process(Process),
    Expire(Expire),
    Cancel(Cancel),
    Saga(SagaMessage),
}

/// Tickets whose purchase is to start, and whose reservation has ended before.
#[derive(Default)]
pub struct EndedReservations(HashSet<TicketId>);

impl Consumer for SagaConsumer {
    type Input = SagaInput;
    type Prefetched = EndedReservations;
    /// The state that a saga has reached, if it is counted.
    type Outcome = Option<SagaLabel>;

    fn group(&self) -> Group {
        progress::GROUP
    }

    fn read(&self, message: &Message) -> Result<SagaInput, Rejection> {
        match message.topic.as_str() {
            Process::TOPIC => message.parse().map(SagaInput::Process),
            Expire::TOPIC => message.parse().map(SagaInput::Expire),
            Cancel::TOPIC => message.parse().map(SagaInput::Cancel),
            _ => SagaMessage::read(&Sagas, message).map(SagaInput::Saga),
        }
    }

    fn required_records(&self, input: &SagaInput) -> Vec<Ref> {
        match input {
            SagaInput::Process(Process { ticket_id, .. }) => vec![
                Ref::to::<SagaRecord>(ticket_id.purchase_saga()),
                Ref::to::<Purchase>(*ticket_id),
            ],
            SagaInput::Expire(Expire { ticket_id, .. }) => vec![
                Ref::to::<SagaRecord>(ticket_id.purchase_saga()),
                Ref::to::<SagaRecord>(ticket_id.expire_saga()),
                Ref::to::<Purchase>(*ticket_id),
            ],
            SagaInput::Cancel(cancel) => vec![
                Ref::to::<SagaRecord>(cancel.ticket_id.cancel_saga(cancel.cancellation)),
                Ref::to::<Purchase>(cancel.ticket_id),
            ],
            SagaInput::Saga(message) => vec![Ref::to::<SagaRecord>(message.saga_id())],
        }
    }

    fn prefetch<'a>(
        &'a self,
        inputs: Vec<&'a SagaInput>,
    ) -> BoxFuture<'a, Result<EndedReservations, StoreError>> {
        Box::pin(self.0.find_ended(inputs))
    }

    fn decide(
        &self,
        message: &Message,
        input: &SagaInput,
        records: &Records,
        ended: &EndedReservations,
        now: Timestamp,
    ) -> Result<Decision<Option<SagaLabel>>, Rejection> {
        match input {
            SagaInput::Process(process) => {
                let has_ended = ended.0.contains(&process.ticket_id);
                progress::start(process, has_ended, records, now)
            }
            SagaInput::Expire(expire) => progress::expire(message, expire.ticket_id, records, now),
            SagaInput::Cancel(cancel) => progress::cancel(cancel, records, now),
            SagaInput::Saga(message) => progress::receive(message, records, now),
        }
    }

    fn committed(&self, reached: Option<SagaLabel>) {
        if let Some(reached) = reached {
            self.0.0.metrics.saga(&reached);
        }
    }
}

impl Service {
    /// Finds the purchases that are to start whose reservation has ended.
    async fn find_ended(&self, inputs: Vec<&SagaInput>) -> Result<EndedReservations, StoreError> {
        let processes = inputs.into_iter().filter_map(|input| match input {
            SagaInput::Process(process) => Some(process),
            SagaInput::Expire(_) | SagaInput::Cancel(_) | SagaInput::Saga(_) => None,
        });
        let found = processes.map(async |process| {
            let found = self.0.reservations.find(process.event_id, process.user_id);
            let is_held = |found: Reservation| found.ticket_id == process.ticket_id;
            let has_ended = !found.await?.is_some_and(is_held);
            Ok::<_, StoreError>(has_ended.then_some(process.ticket_id))
        });
        let ended = try_join_all(found).await?;
        Ok(EndedReservations(ended.into_iter().flatten().collect()))
    }
}
