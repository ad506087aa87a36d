//! The doors for messages: one group moves the sagas, one owns the stock.

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

use crate::{Service, model::Purchase, progress, reservations::Held, sagas::read_answer};

pub use stock::{STOCK_GROUP, STOCK_TOPICS, StockConsumer};

pub const SAGA_GROUP: &str = "ticketing.saga";

/// Moves the sagas.
pub struct SagaConsumer(pub Service);

/// Tickets whose purchase is to start, but whose reservation was gone before its message came.
#[derive(Default)]
pub struct Gone(HashSet<TicketId>);

impl Consumer for SagaConsumer {
    type Prefetched = Gone;

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
            _ => Ok(vec![Ref::to::<SagaRecord>(read_answer(message)?.saga_id)]),
        }
    }

    fn prefetch<'a>(
        &'a self,
        messages: &'a [Arc<Message>],
    ) -> BoxFuture<'a, Result<Gone, StoreError>> {
        Box::pin(self.0.find_gone(messages))
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        gone: &Gone,
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        match message.topic.as_str() {
            Process::TOPIC => {
                let process: Process = message.parse()?;
                let is_gone = gone.0.contains(&process.ticket_id);
                progress::start(&process, is_gone, records, now)
            }
            Expire::TOPIC => progress::expire(message, records, now),
            Cancel::TOPIC => progress::cancel(message.parse()?, records, now),
            SAGA_TIMEOUT => progress::time_out(&message.parse()?, records, now),
            _ => progress::answer(message, records, now),
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
    /// Counts a saga where it begins, ends or needs a person; the steps between are in its history.
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
    /// Purchases that are to start, and whose reservation is not held any more.
    async fn find_gone(&self, messages: &[Arc<Message>]) -> Result<Gone, StoreError> {
        let starts = messages
            .iter()
            .filter(|message| message.topic == Process::TOPIC);
        let processes = starts.filter_map(|message| message.parse::<Process>().ok());
        let found = processes.map(async |process| {
            let held = self.0.reservations.find(process.event_id, process.user_id);
            let is_held = |held: Held| held.ticket_id == process.ticket_id;
            let is_gone = !held.await?.is_some_and(is_held);
            Ok::<_, StoreError>(is_gone.then_some(process.ticket_id))
        });
        let gone = try_join_all(found).await?;
        Ok(Gone(gone.into_iter().flatten().collect()))
    }
}
