//! Promises 1 to 3 over any history of reservations, payments and refunds, with restarts and old messages.

use std::collections::BTreeMap;

use contract::{
    TicketId, UserId,
    domain::{PaymentStatus, Refund, TicketStatus},
    payment::CancelRequest,
    ticketing::{CancelTicketRequest, Release},
};
use proptest::prelude::*;

use crate::test_app::{EVENT, TestApp, paid, payment, payment_id};

#[derive(Debug, Clone)]
enum Step {
    Reserve(i64),
    Pay(usize),
    /// The payment is cancelled at the gateway.
    Withdraw(usize),
    /// Its saga has refunded it.
    CancelTicket(usize),
    /// The release of a compensated purchase arrives late.
    Release(usize),
    /// The message that it was paid is delivered again.
    PaidAgain(usize),
    Expire,
    Offer(i64),
    Work,
    Restart,
    /// The backend loses all data outside the store.
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..12_usize;
    let step = prop_oneof![
        6 => (0..5_i64).prop_map(Step::Reserve),
        6 => which.clone().prop_map(Step::Pay),
        2 => which.clone().prop_map(Step::Withdraw),
        1 => which.clone().prop_map(Step::CancelTicket),
        1 => which.clone().prop_map(Step::Release),
        2 => which.prop_map(Step::PaidAgain),
        2 => Just(Step::Expire),
        1 => (0..4_i64).prop_map(Step::Offer),
        4 => Just(Step::Work),
        1 => Just(Step::Restart),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 1..50)
}

/// A reservation, and the state of its payment.
#[derive(Debug, Clone, Copy)]
struct TrackedPurchase {
    ticket: TicketId,
    user: i64,
    version: i64,
    status: PaymentStatus,
}

struct Run {
    app: TestApp,
    purchases: Vec<TrackedPurchase>,
    event_version: i64,
}

impl Run {
    async fn act(&mut self, step: Step) {
        match step {
            Step::Reserve(user) => self.reserve(user).await,
            Step::Pay(which) => {
                if let Some(purchase) =
                    self.transition(which, PaymentStatus::Created, PaymentStatus::Succeeded)
                {
                    self.app
                        .publish(&paid(purchase.ticket, purchase.user, purchase.version))
                        .await;
                }
            }
            Step::Withdraw(which) => self.withdraw(which).await,
            Step::CancelTicket(which) => self.cancel_ticket(which).await,
            Step::Release(which) => self.release(which).await,
            Step::PaidAgain(which) => {
                if let Some(purchase) = self
                    .purchases
                    .get(which)
                    .filter(|purchase| purchase.version >= 3)
                    .copied()
                {
                    self.app
                        .publish(&paid(purchase.ticket, purchase.user, 3))
                        .await;
                }
            }
            Step::Expire => {
                self.app.advance_past_expiry();
                self.app.service.expire_due().await.unwrap();
            }
            Step::Offer(quantity) => {
                self.event_version += 1;
                self.app.event(quantity, self.event_version).await;
            }
            Step::Work => self.app.run_workers().await,
            Step::Restart => self.app.restart().await,
            Step::Lose => crate::backend::lose(&self.app.settings).await,
        }
    }

    async fn reserve(&mut self, user: i64) {
        if let Ok(ticket) = self.app.reserve(user).await {
            self.purchases.push(TrackedPurchase {
                ticket,
                user,
                version: 2,
                status: PaymentStatus::Created,
            });
        }
    }

    /// Changes the state of a payment; `None` if it is in another state.
    fn transition(
        &mut self,
        which: usize,
        from: PaymentStatus,
        to: PaymentStatus,
    ) -> Option<TrackedPurchase> {
        let purchase = self
            .purchases
            .get_mut(which)
            .filter(|purchase| purchase.status == from)?;
        purchase.status = to;
        purchase.version += 1;
        Some(*purchase)
    }

    async fn withdraw(&mut self, which: usize) {
        let (from, to) = (PaymentStatus::Succeeded, PaymentStatus::Cancelled);
        if let Some(purchase) = self.transition(which, from, to) {
            let told = payment(
                purchase.ticket,
                purchase.user,
                purchase.version,
                (to, Refund::Done),
            );
            self.app.publish(&told).await;
        }
    }

    async fn cancel_ticket(&mut self, which: usize) {
        let Some(purchase) = self.purchases.get(which).copied() else {
            return;
        };
        // Its saga requests this only for an issued ticket, after the refund.
        let status = self.app.ticket_status(purchase.ticket).await;
        if status != Some(TicketStatus::Reserved) {
            return;
        }
        self.withdraw(which).await;
        self.app
            .publish(&CancelTicketRequest {
                saga_id: purchase.ticket.cancel_saga(1),
                ticket_id: purchase.ticket,
                event_id: EVENT,
                user_id: UserId(purchase.user),
            })
            .await;
    }

    async fn release(&mut self, which: usize) {
        let Some(purchase) = self.purchases.get(which).copied() else {
            return;
        };
        // A purchase is compensated only if it is not paid, or if its reservation has expired.
        if purchase.status == PaymentStatus::Created {
            self.app
                .publish(&Release {
                    ticket_id: purchase.ticket,
                    event_id: EVENT,
                    user_id: UserId(purchase.user),
                })
                .await;
        }
    }

    /// Runs the workers until nothing is left to do, and cancels the payments whose refund is requested.
    async fn settle(&mut self) {
        loop {
            self.app.run_workers().await;
            let asked: Vec<_> = self.app.published::<CancelRequest>();
            let is_asked = |purchase: &TrackedPurchase| {
                purchase.status == PaymentStatus::Succeeded
                    && asked
                        .iter()
                        .any(|it| it.payment_id == payment_id(purchase.ticket))
            };
            let Some(which) = self.purchases.iter().position(is_asked) else {
                return;
            };
            self.withdraw(which).await;
        }
    }

    async fn check(&self) {
        self.app.check_consistency().await;
        let mut owners: BTreeMap<i64, TicketId> = BTreeMap::new();
        for purchase in &self.purchases {
            let status = self.app.ticket_status(purchase.ticket).await;
            let is_owned = status == Some(TicketStatus::Reserved);
            assert_eq!(
                is_owned,
                purchase.status == PaymentStatus::Succeeded,
                "money and ticket of {purchase:?}"
            );
            if is_owned {
                assert_eq!(
                    owners.insert(purchase.user, purchase.ticket),
                    None,
                    "one ticket for each user"
                );
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let mut run = Run {
        app: TestApp::with_quantity(3).await,
        purchases: Vec::new(),
        event_version: 1,
    };
    for step in steps {
        run.act(step).await;
    }
    run.settle().await;
    run.check().await;
    run.app.restart().await;
    run.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_of_payments_ends_with_a_ticket_or_a_refund(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}
