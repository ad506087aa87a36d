//! The doors for messages: one group moves the sagas, one owns the stock.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use contract::{
    Payload, TicketId, Timestamp, domain,
    domain::{DomainMessage, PaymentStatus},
    ticketing::{Expire, Process, Release, SagaTimeout},
};
use futures::future::BoxFuture;
use messaging::{
    Commit, Consumer, Message, Record as _, Records, Ref, Rejection, StoreError,
    coordinator::SagaRecord,
};

use crate::{
    Service, issue,
    model::{Allocation, Purchase, Ticket},
    progress,
    reservations::{Claimed, Completion},
    sagas::read_answer,
};

type EventMessage = DomainMessage<domain::Event>;
type PaymentMessage = DomainMessage<domain::Payment>;

pub const SAGA_GROUP: &str = "ticketing.saga";
pub const STOCK_GROUP: &str = "ticketing.stock";
/// The topics that change an event's stock.
pub const STOCK_TOPICS: &[&str] = &[EventMessage::TOPIC, PaymentMessage::TOPIC, Release::TOPIC];

/// Moves the sagas.
pub struct SagaConsumer(pub Service);

/// Tickets whose purchase is to start, but whose reservation was gone before its message came.
#[derive(Default)]
pub struct Gone(HashSet<TicketId>);

impl Consumer for SagaConsumer {
    type Prepared = Gone;

    fn group(&self) -> &'static str {
        SAGA_GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        progress::TOPICS
    }

    fn concerns(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
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
                Ok([ticket_id.purchase_saga(), ticket_id.expire_saga()]
                    .map(Ref::to::<SagaRecord>)
                    .into())
            }
            SagaTimeout::TOPIC => Ok(vec![Ref::to::<SagaRecord>(
                message.parse::<SagaTimeout>()?.saga_id,
            )]),
            _ => Ok(vec![Ref::to::<SagaRecord>(read_answer(message)?.saga_id)]),
        }
    }

    fn prepare<'a>(
        &'a self,
        messages: &'a [Arc<Message>],
    ) -> BoxFuture<'a, Result<Gone, StoreError>> {
        let starts = messages
            .iter()
            .filter(|message| message.topic == Process::TOPIC);
        let processes = starts.filter_map(|message| message.parse::<Process>().ok());
        let gone = processes
            .filter(|process| !self.0.is_held(process))
            .map(|process| process.ticket_id)
            .collect();
        Box::pin(std::future::ready(Ok(Gone(gone))))
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
            Expire::TOPIC => progress::expire(&message.parse()?, records, now),
            SagaTimeout::TOPIC => progress::time_out(&message.parse()?, records, now),
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

/// Owns every event's stock: takes over what the event service says, issues tickets, and takes releases back.
pub struct StockConsumer(pub Service);

/// What the reservations said before the decision.
#[derive(Default)]
pub struct Asked {
    completions: HashMap<TicketId, Completion>,
    releases: HashMap<TicketId, Commit>,
}

impl Consumer for StockConsumer {
    type Prepared = Asked;

    fn group(&self) -> &'static str {
        STOCK_GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        STOCK_TOPICS
    }

    fn concerns(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        match message.topic.as_str() {
            EventMessage::TOPIC => Ok(vec![Ref::to::<Allocation>(
                message.parse::<EventMessage>()?.payload.id,
            )]),
            PaymentMessage::TOPIC => {
                let payment = message.parse::<PaymentMessage>()?.payload;
                Ok(vec![
                    Ref::to::<Allocation>(payment.event_id),
                    Ref::to::<Ticket>(payment.ticket_id),
                ])
            }
            _ => message.parse::<Release>().map(|_| Vec::new()),
        }
    }

    fn prepare<'a>(
        &'a self,
        messages: &'a [Arc<Message>],
    ) -> BoxFuture<'a, Result<Asked, StoreError>> {
        Box::pin(self.0.ask_reservations(messages))
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        match message.topic.as_str() {
            EventMessage::TOPIC => {
                let event: EventMessage = message.parse()?;
                Ok(follow(&event, records.get(event.payload.id)?))
            }
            PaymentMessage::TOPIC => {
                let payment = message.parse::<PaymentMessage>()?.payload;
                match payment.status {
                    PaymentStatus::Succeeded => issue::issue(
                        &payment,
                        asked.completions.get(&payment.ticket_id),
                        records,
                        now,
                    ),
                    PaymentStatus::Created
                    | PaymentStatus::Confirming
                    | PaymentStatus::Failed
                    | PaymentStatus::Cancelled
                    | PaymentStatus::Deleted => Ok(Commit::new()),
                }
            }
            _ => {
                let release: Release = message.parse()?;
                Ok(asked
                    .releases
                    .get(&release.ticket_id)
                    .cloned()
                    .unwrap_or_default())
            }
        }
    }

    fn committed(&self, message: &Message, commit: &Commit) {
        if message.topic == PaymentMessage::TOPIC && !commit.is_empty() {
            let is_issued = commit.puts.iter().any(|put| put.table.name == "ticket");
            let is_given_back = commit
                .messages
                .iter()
                .any(|sent| sent.topic == contract::payment::CancelRequest::TOPIC);
            if is_issued {
                self.0.0.metrics.ticket("issued");
            } else if is_given_back {
                self.0.0.metrics.ticket("given_back");
            }
        }
    }
}

/// The allocation after a domain message of its event.
fn follow(event: &EventMessage, known: Option<Allocation>) -> Commit {
    let followed = match known {
        None => Some(Allocation::new(&event.payload, event.version)),
        Some(known) => known.follow(&event.payload, event.version),
    };
    let mut commit = Commit::new();
    if let Some(allocation) = followed {
        commit.put(&allocation);
    }
    commit
}

impl Service {
    fn is_held(&self, process: &Process) -> bool {
        let held = self.0.reservations.find(process.event_id, process.user_id);
        held.is_some_and(|held| held.ticket_id == process.ticket_id)
    }

    /// Everything that a batch wants of the reservations, in the order of its messages. Messages that cannot be
    /// read are passed over here, and rejected when they are decided.
    async fn ask_reservations(&self, messages: &[Arc<Message>]) -> Result<Asked, StoreError> {
        let mut asked = Asked::default();
        let (mut completions, mut releases) = (Vec::new(), Vec::new());
        for message in messages {
            match message.topic.as_str() {
                EventMessage::TOPIC => {
                    if let Ok(event) = message.parse::<EventMessage>() {
                        self.0
                            .reservations
                            .set_sale(&Allocation::new(&event.payload, event.version))
                            .await?;
                    }
                }
                PaymentMessage::TOPIC => {
                    let payment = message
                        .parse::<PaymentMessage>()
                        .ok()
                        .map(|message| message.payload);
                    let paid = payment.filter(|payment| payment.status == PaymentStatus::Succeeded);
                    completions.extend(paid.map(|payment| Claimed {
                        event_id: payment.event_id,
                        user_id: payment.user_id,
                        ticket_id: payment.ticket_id,
                    }));
                }
                _ => {
                    releases.extend(message.parse::<Release>().ok().map(|release| Claimed {
                        event_id: release.event_id,
                        user_id: release.user_id,
                        ticket_id: release.ticket_id,
                    }));
                }
            }
        }
        let ids = |claims: &[Claimed]| {
            claims
                .iter()
                .map(|claimed| claimed.ticket_id)
                .collect::<Vec<_>>()
        };
        let completed = self.0.reservations.complete(&completions).await?;
        fail::fail_point!("ticketing.after_complete", !completions.is_empty(), |_| {
            std::process::abort()
        });
        asked.completions = ids(&completions).into_iter().zip(completed).collect();
        let released = self.0.reservations.release(&releases).await?;
        fail::fail_point!("ticketing.after_take_back", !releases.is_empty(), |_| {
            std::process::abort()
        });
        asked.releases = ids(&releases).into_iter().zip(released).collect();
        Ok(asked)
    }
}
