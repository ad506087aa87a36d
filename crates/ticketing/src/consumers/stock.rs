//! The stock group: takes over what the event service says, issues tickets, and takes back what is given back.

use std::{collections::HashMap, sync::Arc};

use contract::{
    EventId, Payload, TicketId, Timestamp, UserId,
    domain::{self, DomainMessage, PaymentStatus, TicketStatus},
    payment::CancelRequest,
    ticketing::{CancelTicketRequest, Release},
};
use futures::future::BoxFuture;
use messaging::{
    Commit, Consumer, Key, Message, Record, Records, Ref, Rejection, StoreError, commit::Put,
};

use crate::{
    Service, issue,
    model::{Allocation, Purchase, Reservation, Ticket},
    refund::{self, PurchaseRefund},
    reservations::{Claimed, Completion},
};

type EventMessage = DomainMessage<domain::Event>;
type PaymentMessage = DomainMessage<domain::Payment>;

pub const STOCK_GROUP: &str = "ticketing.stock";
/// The topics that change an event's stock.
pub const STOCK_TOPICS: &[&str] = &[
    EventMessage::TOPIC,
    PaymentMessage::TOPIC,
    Release::TOPIC,
    CancelTicketRequest::TOPIC,
];

/// Owns every event's stock.
pub struct StockConsumer(pub Service);

/// What the reservations said before the decision.
#[derive(Default)]
pub struct Asked {
    completions: HashMap<TicketId, Completion>,
    releases: HashMap<TicketId, Commit>,
    /// What goes with the allocation of an event whose sale has changed.
    sales: HashMap<EventId, Commit>,
}

impl Asked {
    fn release(&mut self, claims: &[Claimed], commits: Vec<Commit>) {
        let ids = claims.iter().map(|claimed| claimed.ticket_id);
        self.releases.extend(ids.zip(commits));
    }

    fn released(&self, ticket_id: TicketId) -> Commit {
        self.releases.get(&ticket_id).cloned().unwrap_or_default()
    }
}

impl Consumer for StockConsumer {
    type Prefetched = Asked;

    fn group(&self) -> &'static str {
        STOCK_GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        STOCK_TOPICS
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        Ok(match StockMessage::read(message)? {
            StockMessage::Event(event) => vec![Ref::to::<Allocation>(event.payload.id)],
            StockMessage::Payment(payment) if refund::is_silent(&payment.payload) => Vec::new(),
            StockMessage::Payment(payment) => {
                let ticket_id = payment.payload.ticket_id;
                let mut concerned = vec![
                    Ref::to::<Allocation>(payment.payload.event_id),
                    Ref::to::<Ticket>(ticket_id),
                    Ref::to::<Purchase>(ticket_id),
                    Ref::to::<PurchaseRefund>(ticket_id),
                ];
                if self.0.reservations().keeps_rows() {
                    concerned.push(Ref::to::<Reservation>(ticket_id));
                }
                concerned
            }
            StockMessage::Release(_) => Vec::new(),
            StockMessage::Cancel(request) => vec![
                Ref::to::<Allocation>(request.event_id),
                Ref::to::<Ticket>(request.ticket_id),
            ],
        })
    }

    fn prefetch<'a>(
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
        match StockMessage::read(message)? {
            StockMessage::Event(event) => {
                let mut commit = follow(&event, records.get(event.payload.id)?);
                let with = asked.sales.get(&event.payload.id).cloned();
                commit.merge(with.unwrap_or_default());
                Ok(commit)
            }
            StockMessage::Payment(payment) => follow_payment(&payment, records, asked, now),
            StockMessage::Release(release) => Ok(asked.released(release.ticket_id)),
            StockMessage::Cancel(request) => {
                let released = asked.released(request.ticket_id);
                refund::cancel_ticket(message, &request, released, records, now)
            }
        }
    }

    fn committed(&self, _message: &Message, commit: &Commit) {
        let metrics = &self.0.0.metrics;
        let put = |table: &str| commit.puts.iter().find(|put| put.table.name == table);
        match put(Ticket::TABLE.name).and_then(status) {
            Some(TicketStatus::Reserved) => {
                metrics.ticket("issued");
                if put(Reservation::TABLE.name).is_some_and(|put| put.expected == 0) {
                    metrics.ticket("retaken");
                }
            }
            Some(TicketStatus::Cancelled) => metrics.ticket("cancelled"),
            Some(TicketStatus::Expired) | None => {}
        }
        let mut sent = commit.messages.iter();
        if sent.any(|sent| sent.topic == CancelRequest::TOPIC) {
            metrics.ticket("given_back");
        }
    }
}

fn status(put: &Put) -> Option<TicketStatus> {
    put.row.read::<Ticket>().ok().map(|ticket| ticket.status)
}

/// A message, read.
enum StockMessage {
    Event(Box<EventMessage>),
    Payment(Box<PaymentMessage>),
    Release(Release),
    Cancel(CancelTicketRequest),
}

impl StockMessage {
    fn read(message: &Message) -> Result<Self, Rejection> {
        match message.topic.as_str() {
            EventMessage::TOPIC => message.parse().map(Box::new).map(Self::Event),
            PaymentMessage::TOPIC => message.parse().map(Box::new).map(Self::Payment),
            Release::TOPIC => message.parse().map(Self::Release),
            CancelTicketRequest::TOPIC => message.parse().map(Self::Cancel),
            other => Err(Rejection::new(format_args!(
                "{STOCK_GROUP} does not read {other}"
            ))),
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

fn follow_payment(
    message: &PaymentMessage,
    records: &Records,
    asked: &Asked,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    if refund::is_silent(&message.payload) {
        return Ok(Commit::new());
    }
    let ticket_id = message.payload.ticket_id;
    let mut commit = match message.payload.status {
        PaymentStatus::Succeeded => {
            issue::issue(message, asked.completions.get(&ticket_id), records, now)?
        }
        PaymentStatus::Cancelled => {
            refund::cancel(message, asked.released(ticket_id), records, now)?
        }
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => Commit::new(),
    };
    commit.merge(refund::note(message, records, now)?);
    Ok(commit)
}

/// What one message wants of the reservations.
enum Wish {
    SetSale(Allocation),
    Complete(Claimed),
    GiveBack(Claimed),
    ReleaseUnpaid(Claimed),
}

impl Wish {
    /// `None` where it wants nothing, or cannot be read: it is rejected when it is decided.
    fn of(message: &Message) -> Option<Self> {
        let claimed = |event_id: EventId, user_id: UserId, ticket_id: TicketId| Claimed {
            event_id,
            user_id,
            ticket_id,
        };
        match StockMessage::read(message).ok()? {
            StockMessage::Event(event) => {
                let sale = Allocation::new(&event.payload, event.version);
                Some(Self::SetSale(sale))
            }
            StockMessage::Payment(payment) => {
                let it = &payment.payload;
                let claimed = claimed(it.event_id, it.user_id, it.ticket_id);
                match it.status {
                    PaymentStatus::Succeeded => {
                        (it.refund == domain::Refund::None).then_some(Self::Complete(claimed))
                    }
                    PaymentStatus::Cancelled => Some(Self::GiveBack(claimed)),
                    PaymentStatus::Created
                    | PaymentStatus::Confirming
                    | PaymentStatus::Failed
                    | PaymentStatus::Deleted => None,
                }
            }
            StockMessage::Release(it) => Some(Self::ReleaseUnpaid(claimed(
                it.event_id,
                it.user_id,
                it.ticket_id,
            ))),
            StockMessage::Cancel(it) => Some(Self::GiveBack(claimed(
                it.event_id,
                it.user_id,
                it.ticket_id,
            ))),
        }
    }
}

/// Claims that messages between two changes of a sale speak of.
#[derive(Default)]
struct Claims {
    paid: Vec<Claimed>,
    given_back: Vec<Claimed>,
    unpaid: Vec<Claimed>,
}

impl Service {
    /// Everything that a batch wants of the reservations. A change of the sale is taken over in its place among the
    /// claims, so that the stock in memory and the allocation come to the same quantity.
    async fn ask_reservations(&self, messages: &[Arc<Message>]) -> Result<Asked, StoreError> {
        let mut asked = Asked::default();
        let mut claims = Claims::default();
        for wish in messages.iter().filter_map(|message| Wish::of(message)) {
            match wish {
                Wish::Complete(claimed) => claims.paid.push(claimed),
                Wish::GiveBack(claimed) => claims.given_back.push(claimed),
                Wish::ReleaseUnpaid(claimed) => claims.unpaid.push(claimed),
                Wish::SetSale(sale) => {
                    self.ask_claims(std::mem::take(&mut claims), &mut asked)
                        .await?;
                    let with = self.0.reservations.set_sale(&sale).await?;
                    asked.sales.insert(sale.event_id, with);
                }
            }
        }
        self.ask_claims(claims, &mut asked).await?;
        Ok(asked)
    }

    /// What is paid is completed before anything is released, so that a payment that succeeds and is cancelled within
    /// one batch leaves no claim.
    async fn ask_claims(&self, claims: Claims, asked: &mut Asked) -> Result<(), StoreError> {
        let Claims {
            paid,
            given_back,
            unpaid,
        } = claims;
        let reservations = &self.0.reservations;
        let completions = self.complete_or_retake(&paid, &asked.releases).await?;
        asked.completions.extend(completions);
        fail::fail_point!("ticketing.after_complete", !paid.is_empty(), |_| {
            std::process::abort()
        });
        let released = reservations.release(&given_back).await?;
        asked.release(&given_back, released);
        let released = reservations.release_unpaid(&unpaid).await?;
        asked.release(&unpaid, released);
        fail::fail_point!(
            "ticketing.after_take_back",
            !given_back.is_empty() || !unpaid.is_empty(),
            |_| std::process::abort()
        );
        Ok(())
    }

    /// Completes what is paid; where a claim is gone, and was not released within this batch, its ticket is taken again.
    async fn complete_or_retake(
        &self,
        paid: &[Claimed],
        released: &HashMap<TicketId, Commit>,
    ) -> Result<HashMap<TicketId, Completion>, StoreError> {
        let reservations = &self.0.reservations;
        let completed = reservations.complete(paid).await?;
        let mut completions: HashMap<_, _> = paid
            .iter()
            .map(|claimed| claimed.ticket_id)
            .zip(completed)
            .collect();
        let is_gone = |claimed: &&Claimed| {
            matches!(completions[&claimed.ticket_id], Completion::Gone)
                && !released.contains_key(&claimed.ticket_id)
        };
        let gone: Vec<Claimed> = paid.iter().filter(is_gone).copied().collect();
        let wanted_again = self.without_decided(gone).await?;
        if wanted_again.is_empty() {
            return Ok(completions);
        }
        reservations
            .retake(&wanted_again, self.0.clock.now())
            .await?;
        // This member may have slept since it looked, and another have issued the ticket, cancelled it and released the
        // claim. What it took again then waits for nobody. What is decided from here on finds the claim.
        let wanted = self.without_decided(wanted_again.clone()).await?;
        let (buying, decided): (Vec<Claimed>, Vec<Claimed>) = wanted_again
            .into_iter()
            .partition(|claimed| wanted.contains(claimed));
        reservations.release_unpaid(&decided).await?;
        let retaken = reservations.complete(&buying).await?;
        let ids = buying.iter().map(|claimed| claimed.ticket_id);
        completions.extend(ids.zip(retaken));
        Ok(completions)
    }

    /// Leaves out the claims that nothing is to be taken again for: their ticket was issued before, their payment was
    /// cancelled, or their buyer gave them back. It only saves taking what the decision would not use, and what a
    /// decision does not use is released when its payment is told as CANCELLED.
    async fn without_decided(&self, mut gone: Vec<Claimed>) -> Result<Vec<Claimed>, StoreError> {
        if gone.is_empty() {
            return Ok(gone);
        }
        let keys: Vec<Key> = gone.iter().map(|it| it.ticket_id.into()).collect();
        let mut decided = Vec::new();
        for row in self.0.store.load_rows(Ticket::TABLE, &keys).await? {
            decided.push(row.read::<Ticket>()?.ticket_id);
        }
        for row in self.0.store.load_rows(PurchaseRefund::TABLE, &keys).await? {
            let refund: PurchaseRefund = row.read()?;
            decided.extend(refund.is_final().then_some(refund.ticket_id));
        }
        for row in self.0.store.load_rows(Purchase::TABLE, &keys).await? {
            let purchase: Purchase = row.read()?;
            decided.extend(purchase.released_at.map(|_| purchase.ticket_id));
        }
        gone.retain(|claimed| !decided.contains(&claimed.ticket_id));
        Ok(gone)
    }
}
