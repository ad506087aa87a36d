//! One buyer's way through the API: reserve, start the purchase, follow it, pay, wait for the ticket. It owns nothing;
//! what came of it is a [`Visit`].

use contract::{EventId, Money, TicketId, UserId, domain::PaymentStatus};
use saga::SagaState;

use super::{
    api::{Api, Bill, Progress},
    cast::{Card, Part},
    patience::until,
};

/// Somebody who wants a ticket.
#[derive(Debug, Clone)]
pub struct Buyer {
    pub user_id: UserId,
    pub part: Part,
}

/// What is on sale.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    pub event_id: EventId,
    pub price: Money,
}

/// What came of one visit.
#[derive(Debug, Clone)]
pub struct Visit {
    pub buyer: Buyer,
    /// The code of a refusal, at whichever step it came.
    pub refused: Option<String>,
    /// Cards.
    pub declined: u32,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// There was no reservation.
    LeftOut,
    /// The purchase turned back.
    Compensated { reason: String },
    /// The reservation is left to lapse.
    Unpaid { ticket_id: TicketId },
    /// Paid, and given back: there was no ticket.
    Refunded,
    /// The ticket is there.
    Bought { paid: Money },
}

/// What came of trying one card.
enum Swipe {
    Approved,
    Declined,
    /// It is too late to pay.
    Closed {
        code: Option<String>,
    },
}

/// # Errors
/// Where the server does not answer, or answers what it should not.
pub async fn visit(api: &Api, show: Show, buyer: Buyer) -> anyhow::Result<Visit> {
    let mut visit = Visit {
        buyer,
        refused: None,
        declined: 0,
        end: End::LeftOut,
    };
    visit.end = visit.go(api, show).await?;
    Ok(visit)
}

impl Visit {
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        self.end == End::LeftOut && self.refused.as_deref() == Some("SOLD_OUT")
    }

    async fn go(&mut self, api: &Api, show: Show) -> anyhow::Result<End> {
        let Buyer { user_id, ref part } = self.buyer;
        let ticket_id = match api.reserve(show.event_id, user_id).await? {
            Ok(ticket_id) => ticket_id,
            Err(refusal) => {
                self.refused = Some(refusal.code);
                return Ok(End::LeftOut);
            }
        };
        let names = (show.event_id, user_id);
        let amounts = (show.price, part.point);
        if let Err(refusal) = api.process(ticket_id, names, amounts).await? {
            self.refused = Some(refusal.code);
            return Ok(End::Unpaid { ticket_id });
        }
        match follow(api, ticket_id).await? {
            Ok(bill) => self.pay(api, bill).await,
            Err(reason) => Ok(End::Compensated { reason }),
        }
    }

    async fn pay(&mut self, api: &Api, bill: Bill) -> anyhow::Result<End> {
        for (attempt, card) in self.buyer.part.character.cards().iter().enumerate() {
            match swipe(api, bill, attempt, *card).await? {
                Swipe::Approved => return collect(api, bill).await,
                Swipe::Declined => self.declined += 1,
                Swipe::Closed { code } => {
                    self.refused = code;
                    break;
                }
            }
        }
        Ok(End::Unpaid {
            ticket_id: bill.ticket_id,
        })
    }
}

/// Waits until the purchase ends: with a bill, or with the reason why not.
async fn follow(api: &Api, ticket_id: TicketId) -> anyhow::Result<Result<Bill, String>> {
    let what = format!("the purchase of {ticket_id} to end");
    let ended = until(&what, async || {
        let progress = api.progress(ticket_id).await?;
        Ok(progress
            .ok()
            .filter(|progress| progress.saga_state.is_terminal()))
    });
    let Progress {
        saga_state,
        payment_id,
        final_amount,
        failure,
    } = ended.await?;
    Ok(match (saga_state, payment_id, final_amount) {
        (SagaState::Completed, Some(payment_id), Some(amount)) => Ok(Bill {
            ticket_id,
            payment_id,
            amount,
        }),
        _ => Err(failure.unwrap_or_else(|| "UNKNOWN".to_owned())),
    })
}

async fn swipe(api: &Api, bill: Bill, attempt: usize, card: Card) -> anyhow::Result<Swipe> {
    match api.pay(bill, attempt, card).await? {
        Ok(Some(true)) => return Ok(Swipe::Approved),
        Ok(Some(false) | None) => {}
        Err(refusal) => {
            return Ok(Swipe::Closed {
                code: Some(refusal.code),
            });
        }
    }
    // Another attempt may begin only when this one is written off.
    let what = format!("the attempt to pay for {} to end", bill.ticket_id);
    let status = until(&what, async || {
        let status = api.payment_status(bill.payment_id).await?;
        Ok(Some(status).filter(|status| *status != PaymentStatus::Confirming))
    });
    Ok(match status.await? {
        PaymentStatus::Succeeded => Swipe::Approved,
        PaymentStatus::Created | PaymentStatus::Failed => Swipe::Declined,
        PaymentStatus::Confirming | PaymentStatus::Cancelled | PaymentStatus::Deleted => {
            Swipe::Closed { code: None }
        }
    })
}

/// Waits for the ticket that was paid, or for the money.
async fn collect(api: &Api, bill: Bill) -> anyhow::Result<End> {
    let what = format!("the ticket {}", bill.ticket_id);
    until(&what, async || {
        if api.ticket(bill.ticket_id).await?.is_some() {
            return Ok(Some(End::Bought { paid: bill.amount }));
        }
        let status = api.payment_status(bill.payment_id).await?;
        Ok((status == PaymentStatus::Cancelled).then_some(End::Refunded))
    })
    .await
}
