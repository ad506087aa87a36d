//! The consumers: one group advances the sagas, one owns the stock.

mod stock;

use std::{collections::HashSet, sync::Arc};

use contract::{
    Payload, TicketId, Timestamp,
    ticketing::{Cancel, Expire, Process, SAGA_TIMEOUT, SagaTimeout},
};
use futures::future::{BoxFuture, try_join_all};
use messaging::{
    Commit, Consumer, Message, Record as _, Records, Ref, Rejection, StoreError,
    coordinator::SagaRecord,
};

use crate::{Service, model::Purchase, progress, reservations::Reservation, sagas::read_reply};

pub use stock::{STOCK_GROUP, STOCK_TOPICS, StockConsumer};

pub const SAGA_GROUP: &str = "ticketing.saga";

/// Advances the sagas.
pub struct SagaConsumer(pub Service);

/// Tickets whose purchase is to start, and whose reservation has ended before.
#[derive(Default)]
pub struct EndedReservations(HashSet<TicketId>);

impl Consumer for SagaConsumer {
    type Prefetched = EndedReservations;

    fn group(&self) -> &'static str {
        SAGA_GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        progress::TOPICS
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        match message.topic.as_str() {
            Process::TOPIC => {
                let ticket_id = message.parse::<Process>()?.ticket_id;
                Ok(vec![
                    Ref::to::<SagaRecord>(ticket_id.purchase_saga()),
                    Ref::to::<Purchase>(ticket_id),
                ])
            }
            Expire::TOPIC => {
                let ticket_id = message.parse::<Expire>()?.ticket_id;
                Ok(vec![
                    Ref::to::<SagaRecord>(ticket_id.purchase_saga()),
                    Ref::to::<SagaRecord>(ticket_id.expire_saga()),
                    Ref::to::<Purchase>(ticket_id),
                ])
            }
            Cancel::TOPIC => {
                let cancel: Cancel = message.parse()?;
                let saga_id = cancel.ticket_id.cancel_saga(cancel.cancellation);
                Ok(vec![
                    Ref::to::<SagaRecord>(saga_id),
                    Ref::to::<Purchase>(cancel.ticket_id),
                ])
            }
            SAGA_TIMEOUT => Ok(vec![Ref::to::<SagaRecord>(
                message.parse::<SagaTimeout>()?.saga_id,
            )]),
            _ => Ok(vec![Ref::to::<SagaRecord>(read_reply(message)?.saga_id)]),
        }
    }

    fn prefetch<'a>(
        &'a self,
        messages: &'a [Arc<Message>],
    ) -> BoxFuture<'a, Result<EndedReservations, StoreError>> {
        Box::pin(self.0.find_ended(messages))
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        ended: &EndedReservations,
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        match message.topic.as_str() {
            Process::TOPIC => {
                let process: Process = message.parse()?;
                let has_ended = ended.0.contains(&process.ticket_id);
                progress::start(&process, has_ended, records, now)
            }
            Expire::TOPIC => progress::expire(message, records, now),
            Cancel::TOPIC => progress::cancel(message.parse()?, records, now),
            SAGA_TIMEOUT => progress::time_out(&message.parse()?, records, now),
            _ => progress::apply_reply(message, records, now),
        }
    }

    fn committed(&self, _message: &Message, commit: &Commit) {
        commit
            .puts
            .iter()
            .filter(|put| put.table.name == SagaRecord::TABLE.name)
            .for_each(|put| self.count(put));
    }
}

impl SagaConsumer {
    /// Counts a saga when it starts, ends or is parked.
    fn count(&self, put: &messaging::commit::Put) {
        let text = |column| put.row.get(column).and_then(serde_json::Value::as_str);
        let (saga_type, state) = (
            text("saga_type").unwrap_or_default(),
            text("state").unwrap_or_default(),
        );
        let reached = match state {
            _ if text("parked").is_some() => "PARKED",
            "COMPLETED" | "COMPENSATED" => state,
            _ if put.expected == 0 => "STARTED",
            _ => return,
        };
        self.0.0.metrics.saga(saga_type, reached);
    }
}

impl Service {
    /// Finds the purchases that are to start whose reservation has ended.
    async fn find_ended(&self, messages: &[Arc<Message>]) -> Result<EndedReservations, StoreError> {
        let starts = messages
            .iter()
            .filter(|message| message.topic == Process::TOPIC);
        let processes = starts.filter_map(|message| message.parse::<Process>().ok());
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
