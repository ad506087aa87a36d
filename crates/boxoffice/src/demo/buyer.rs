//! One buyer's purchase through the API: reserve, process, poll, pay, wait for the ticket. It owns nothing; the result is
//! a [`Visit`].

use contract::{EventId, Money, TicketId, UserId, domain::PaymentStatus};
use saga::SagaState;

use super::{
    api::{Api, Bill, Progress},
    personas::{Card, Persona},
    polling::poll_until,
};

#[derive(Debug, Clone)]
pub struct Buyer {
    pub user_id: UserId,
    pub persona: Persona,
}

/// The event on sale.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    pub event_id: EventId,
    pub price: Money,
}

/// One attempt of a buyer to get a ticket, and its result.
#[derive(Debug, Clone)]
pub struct Visit {
    pub buyer: Buyer,
    /// The code of the refusal, of whichever step.
    pub refused: Option<String>,
    /// How many cards were declined.
    pub declined: u32,
    pub outcome: VisitOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VisitOutcome {
    /// The reservation was refused.
    LeftOut,
    Compensated {
        reason: String,
    },
    /// The buyer abandoned the reservation.
    Unpaid {
        ticket_id: TicketId,
    },
    /// Paid and refunded, because no ticket could be issued.
    Refunded,
    /// The ticket is issued.
    Bought {
        paid: Money,
    },
}

/// The result of paying by one card.
enum CardOutcome {
    Approved,
    Declined,
    /// The payment can no longer be paid.
    Closed {
        code: Option<String>,
    },
}

/// # Errors
/// If a request fails.
pub async fn visit(api: &Api, show: Show, buyer: Buyer) -> anyhow::Result<Visit> {
    let mut visit = Visit {
        buyer,
        refused: None,
        declined: 0,
        outcome: VisitOutcome::LeftOut,
    };
    visit.outcome = visit.go(api, show).await?;
    Ok(visit)
}

impl Visit {
    pub fn is_sold_out(&self) -> bool {
        self.outcome == VisitOutcome::LeftOut && self.refused.as_deref() == Some("SOLD_OUT")
    }

    /// The ticket that the buyer reserved and did not pay.
    pub fn unpaid_ticket(&self) -> Option<TicketId> {
        if let VisitOutcome::Unpaid { ticket_id } = self.outcome {
            return Some(ticket_id);
        }
        None
    }

    async fn go(&mut self, api: &Api, show: Show) -> anyhow::Result<VisitOutcome> {
        let Buyer {
            user_id,
            ref persona,
        } = self.buyer;
        let ticket_id = match api.reserve(show.event_id, user_id).await? {
            Ok(ticket_id) => ticket_id,
            Err(refusal) => {
                self.refused = Some(refusal.code);
                return Ok(VisitOutcome::LeftOut);
            }
        };
        let names = (show.event_id, user_id);
        let amounts = (show.price, persona.point);
        if let Err(refusal) = api.process(ticket_id, names, amounts).await? {
            self.refused = Some(refusal.code);
            return Ok(VisitOutcome::Unpaid { ticket_id });
        }
        match follow(api, ticket_id).await? {
            Ok(bill) => self.pay(api, bill).await,
            Err(reason) => Ok(VisitOutcome::Compensated { reason }),
        }
    }

    async fn pay(&mut self, api: &Api, bill: Bill) -> anyhow::Result<VisitOutcome> {
        for (attempt, card) in self.buyer.persona.behaviour.cards().iter().enumerate() {
            match try_card(api, bill, attempt, *card).await? {
                CardOutcome::Approved => return collect(api, bill).await,
                CardOutcome::Declined => self.declined += 1,
                CardOutcome::Closed { code } => {
                    self.refused = code;
                    break;
                }
            }
        }
        Ok(VisitOutcome::Unpaid {
            ticket_id: bill.ticket_id,
        })
    }
}

/// Polls until the purchase saga ends: completed with a bill, or compensated with a reason.
async fn follow(api: &Api, ticket_id: TicketId) -> anyhow::Result<Result<Bill, String>> {
    let what = format!("the purchase of {ticket_id} to end");
    let ended = poll_until(&what, async || {
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

async fn try_card(
    api: &Api,
    bill: Bill,
    attempt: usize,
    card: Card,
) -> anyhow::Result<CardOutcome> {
    match api.pay(bill, attempt, card).await? {
        Ok(Some(true)) => return Ok(CardOutcome::Approved),
        Ok(Some(false) | None) => {}
        Err(refusal) => {
            return Ok(CardOutcome::Closed {
                code: Some(refusal.code),
            });
        }
    }
    // The server accepts the next attempt only after this one has an outcome.
    let what = format!("the attempt to pay for {} to end", bill.ticket_id);
    let status = poll_until(&what, async || {
        let status = api.payment_status(bill.payment_id).await?;
        Ok(Some(status).filter(|status| *status != PaymentStatus::Confirming))
    });
    Ok(match status.await? {
        PaymentStatus::Succeeded => CardOutcome::Approved,
        PaymentStatus::Created | PaymentStatus::Failed => CardOutcome::Declined,
        PaymentStatus::Confirming | PaymentStatus::Cancelled | PaymentStatus::Deleted => {
            CardOutcome::Closed { code: None }
        }
    })
}

/// Waits for the paid ticket, or for the refund.
async fn collect(api: &Api, bill: Bill) -> anyhow::Result<VisitOutcome> {
    let what = format!("the ticket {}", bill.ticket_id);
    poll_until(&what, async || {
        if api.ticket(bill.ticket_id).await?.is_some() {
            return Ok(Some(VisitOutcome::Bought { paid: bill.amount }));
        }
        let status = api.payment_status(bill.payment_id).await?;
        Ok((status == PaymentStatus::Cancelled).then_some(VisitOutcome::Refunded))
    })
    .await
}
