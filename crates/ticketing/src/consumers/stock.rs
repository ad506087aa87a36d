//! The stock group: applies changes of events, issues paid tickets, and returns released and cancelled ones to the stock.

use std::collections::HashMap;

use contract::{
    EventId, Payload, TicketId, Timestamp, UserId,
    domain::{self, DomainMessage, PaymentStatus},
    ticketing::{CancelTicketRequest, Release},
};
use futures::future::BoxFuture;
use messaging::{
    Commit, Consumer, Decision, Group, Key, Message, Record, Records, Ref, Rejection, StoreError,
};

use crate::{
    Service, issue,
    metrics::TicketOutcome,
    model::{Allocation, Purchase, Ticket},
    refund::{self, PurchaseRefund},
    reservations::{ClaimId, Completion},
};

type EventMessage = DomainMessage<domain::Event>;
type PaymentMessage = DomainMessage<domain::Payment>;

/// Reads what changes an event's stock.
pub const STOCK_GROUP: Group = Group {
    name: "ticketing.stock",
    topics: &[
        EventMessage::TOPIC,
        PaymentMessage::TOPIC,
        Release::TOPIC,
        CancelTicketRequest::TOPIC,
    ],
};

/// Owns every event's stock.
pub struct StockConsumer(pub Service);

/// What the reservations did for a batch before its messages are decided.
#[derive(Default)]
pub struct ReservationOutcomes {
    completions: HashMap<TicketId, Completion>,
    releases: HashMap<TicketId, Commit>,
    /// To be committed with the allocation of an event whose sale changed.
    sales: HashMap<EventId, Commit>,
}

impl ReservationOutcomes {
    fn add_releases(&mut self, claims: &[ClaimId], commits: Vec<Commit>) {
        let ids = claims.iter().map(|claim| claim.ticket_id);
        self.releases.extend(ids.zip(commits));
    }

    fn released(&self, ticket_id: TicketId) -> Commit {
        self.releases.get(&ticket_id).cloned().unwrap_or_default()
    }
}

impl Consumer for StockConsumer {
    type Input = StockMessage;
    type Prefetched = ReservationOutcomes;
    type Outcome = Option<TicketOutcome>;

    fn group(&self) -> Group {
        STOCK_GROUP
    }

    fn read(&self, message: &Message) -> Result<StockMessage, Rejection> {
        match message.topic.as_str() {
            EventMessage::TOPIC => message.parse().map(StockMessage::Event),
            PaymentMessage::TOPIC => message.parse().map(StockMessage::Payment),
            Release::TOPIC => message.parse().map(StockMessage::Release),
            CancelTicketRequest::TOPIC => message.parse().map(StockMessage::Cancel),
            other => Err(Rejection::new(format_args!(
                "{} does not read {other}",
                STOCK_GROUP.name
            ))),
        }
    }

    fn required_records(&self, input: &StockMessage) -> Vec<Ref> {
        match input {
            StockMessage::Event(event) => vec![Ref::to::<Allocation>(event.payload.id)],
            StockMessage::Payment(payment) if refund::is_irrelevant(&payment.payload) => Vec::new(),
            StockMessage::Payment(payment) => {
                let ticket_id = payment.payload.ticket_id;
                let mut required = vec![
                    Ref::to::<Allocation>(payment.payload.event_id),
                    Ref::to::<Ticket>(ticket_id),
                    Ref::to::<Purchase>(ticket_id),
                    Ref::to::<PurchaseRefund>(ticket_id),
                ];
                required.extend(self.0.reservations().required_record(ticket_id));
                required
            }
            StockMessage::Release(_) => Vec::new(),
            StockMessage::Cancel(request) => vec![
                Ref::to::<Allocation>(request.event_id),
                Ref::to::<Ticket>(request.ticket_id),
            ],
        }
    }

    fn prefetch<'a>(
        &'a self,
        inputs: Vec<&'a StockMessage>,
    ) -> BoxFuture<'a, Result<ReservationOutcomes, StoreError>> {
        Box::pin(self.0.apply_to_reservations(inputs))
    }

    fn decide(
        &self,
        message: &Message,
        input: &StockMessage,
        records: &Records,
        outcomes: &ReservationOutcomes,
        now: Timestamp,
    ) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
        match input {
            StockMessage::Event(event) => {
                let mut commit = apply_event(event, records.get(event.payload.id)?);
                let also = outcomes.sales.get(&event.payload.id).cloned();
                commit.merge(also.unwrap_or_default());
                Ok(commit.into())
            }
            StockMessage::Payment(payment) => apply_payment(payment, records, outcomes, now),
            StockMessage::Release(release) => Ok(outcomes.released(release.ticket_id).into()),
            StockMessage::Cancel(request) => {
                let released = outcomes.released(request.ticket_id);
                refund::apply_cancel_request(message, request, released, records, now)
            }
        }
    }

    fn committed(&self, outcome: Option<TicketOutcome>) {
        if let Some(outcome) = outcome {
            self.0.0.metrics.ticket(outcome);
        }
    }
}

/// A parsed message of the stock group.
pub enum StockMessage {
    Event(Box<EventMessage>),
    Payment(Box<PaymentMessage>),
    Release(Release),
    Cancel(CancelTicketRequest),
}

/// The allocation after a domain message of its event.
fn apply_event(event: &EventMessage, known: Option<Allocation>) -> Commit {
    let updated = match known {
        None => Some(Allocation::new(&event.payload, event.version)),
        Some(known) => known.apply_event(&event.payload, event.version),
    };
    let mut commit = Commit::new();
    if let Some(allocation) = updated {
        commit.put(&allocation);
    }
    commit
}

fn apply_payment(
    message: &PaymentMessage,
    records: &Records,
    outcomes: &ReservationOutcomes,
    now: Timestamp,
) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
    if refund::is_irrelevant(&message.payload) {
        return Ok(Decision::default());
    }
    let ticket_id = message.payload.ticket_id;
    let mut decision = match message.payload.status {
        PaymentStatus::Succeeded => {
            let completion = outcomes.completions.get(&ticket_id);
            issue::issue(message, completion, records, now)?
        }
        PaymentStatus::Cancelled => {
            let released = outcomes.released(ticket_id);
            refund::apply_cancelled_payment(message, released, records, now)?
        }
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => Decision::default(),
    };
    let refund = refund::record_refund(message, records, now)?;
    decision.commit.merge(refund);
    Ok(decision)
}

/// What one message does to the reservations before it is decided.
enum ReservationAction {
    SetSale(Allocation),
    Complete(ClaimId),
    Release(ClaimId),
    ReleaseUnpaid(ClaimId),
}

impl ReservationAction {
    /// `None` if it does nothing.
    fn of(message: &StockMessage) -> Option<Self> {
        let claim = |event_id: EventId, user_id: UserId, ticket_id: TicketId| ClaimId {
            event_id,
            user_id,
            ticket_id,
        };
        match message {
            StockMessage::Event(event) => {
                let sale = Allocation::new(&event.payload, event.version);
                Some(Self::SetSale(sale))
            }
            StockMessage::Payment(payment) => {
                let it = &payment.payload;
                let claim = claim(it.event_id, it.user_id, it.ticket_id);
                match it.status {
                    PaymentStatus::Succeeded => {
                        (it.refund == domain::Refund::None).then_some(Self::Complete(claim))
                    }
                    PaymentStatus::Cancelled => Some(Self::Release(claim)),
                    PaymentStatus::Created
                    | PaymentStatus::Confirming
                    | PaymentStatus::Failed
                    | PaymentStatus::Deleted => None,
                }
            }
            StockMessage::Release(it) => Some(Self::ReleaseUnpaid(claim(
                it.event_id,
                it.user_id,
                it.ticket_id,
            ))),
            StockMessage::Cancel(it) => {
                Some(Self::Release(claim(it.event_id, it.user_id, it.ticket_id)))
            }
        }
    }
}

/// The claims of a batch's messages, up to the next change of a sale.
#[derive(Default)]
struct ClaimBatch {
    paid: Vec<ClaimId>,
    cancelled: Vec<ClaimId>,
    unpaid: Vec<ClaimId>,
}

impl Service {
    /// Applies a batch to the reservations. A change of a sale keeps its place between the claims, so that the stock in
    /// memory and the allocation reach the same quantity.
    async fn apply_to_reservations(
        &self,
        inputs: Vec<&StockMessage>,
    ) -> Result<ReservationOutcomes, StoreError> {
        let mut outcomes = ReservationOutcomes::default();
        let mut batch = ClaimBatch::default();
        for action in inputs.into_iter().filter_map(ReservationAction::of) {
            match action {
                ReservationAction::Complete(claim) => batch.paid.push(claim),
                ReservationAction::Release(claim) => batch.cancelled.push(claim),
                ReservationAction::ReleaseUnpaid(claim) => batch.unpaid.push(claim),
                ReservationAction::SetSale(sale) => {
                    self.apply_claims(std::mem::take(&mut batch), &mut outcomes)
                        .await?;
                    let also = self.0.reservations.set_sale(&sale).await?;
                    outcomes.sales.insert(sale.event_id, also);
                }
            }
        }
        self.apply_claims(batch, &mut outcomes).await?;
        Ok(outcomes)
    }

    /// Completes paid claims before it releases any, so that a payment that succeeds and is cancelled within one batch
    /// leaves no claim.
    async fn apply_claims(
        &self,
        batch: ClaimBatch,
        outcomes: &mut ReservationOutcomes,
    ) -> Result<(), StoreError> {
        let ClaimBatch {
            paid,
            cancelled,
            unpaid,
        } = batch;
        let reservations = &self.0.reservations;
        let completions = self.complete_or_retake(&paid, &outcomes.releases).await?;
        outcomes.completions.extend(completions);
        fail::fail_point!("ticketing.after_complete", !paid.is_empty(), |_| {
            std::process::abort()
        });
        let released = reservations.release(&cancelled).await?;
        outcomes.add_releases(&cancelled, released);
        let released = reservations.release_unpaid(&unpaid).await?;
        outcomes.add_releases(&unpaid, released);
        fail::fail_point!(
            "ticketing.after_take_back",
            !cancelled.is_empty() || !unpaid.is_empty(),
            |_| std::process::abort()
        );
        Ok(())
    }

    /// Completes paid claims. One that is gone, and was not released within this batch, is retaken first.
    async fn complete_or_retake(
        &self,
        paid: &[ClaimId],
        released: &HashMap<TicketId, Commit>,
    ) -> Result<HashMap<TicketId, Completion>, StoreError> {
        let reservations = &self.0.reservations;
        let completed = reservations.complete(paid).await?;
        let mut completions: HashMap<_, _> = paid
            .iter()
            .map(|claim| claim.ticket_id)
            .zip(completed)
            .collect();
        let is_gone = |claim: &&ClaimId| {
            matches!(completions[&claim.ticket_id], Completion::Gone)
                && !released.contains_key(&claim.ticket_id)
        };
        let gone: Vec<ClaimId> = paid.iter().filter(is_gone).copied().collect();
        let undecided = self.without_decided(gone).await?;
        if undecided.is_empty() {
            return Ok(completions);
        }
        reservations.retake(&undecided, self.0.clock.now()).await?;
        // This process may have been paused since it looked, while another issued the ticket, cancelled it and released
        // the claim. A claim retaken after that is released again. Any decision from here on finds the claim.
        let still_undecided = self.without_decided(undecided.clone()).await?;
        let (buying, decided): (Vec<ClaimId>, Vec<ClaimId>) = undecided
            .into_iter()
            .partition(|claim| still_undecided.contains(claim));
        reservations.release_unpaid(&decided).await?;
        let retaken = reservations.complete(&buying).await?;
        let ids = buying.iter().map(|claim| claim.ticket_id);
        completions.extend(ids.zip(retaken));
        Ok(completions)
    }

    /// Leaves out claims that need no ticket: it was issued before, the payment was cancelled, or the buyer released the
    /// claim. This only avoids retaking them in vain: a retaken claim without a ticket is released when its payment is
    /// CANCELLED.
    async fn without_decided(&self, mut gone: Vec<ClaimId>) -> Result<Vec<ClaimId>, StoreError> {
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
        gone.retain(|claim| !decided.contains(&claim.ticket_id));
        Ok(gone)
    }
}
