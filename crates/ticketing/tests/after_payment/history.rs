//! Promises 1 to 3 over any history of reservations, payments and refunds, with restarts and old messages in between.

use std::collections::BTreeMap;

use contract::{
    TicketId, UserId,
    domain::{PaymentStatus, Refund, TicketStatus},
    payment::CancelRequest,
    ticketing::{CancelTicketRequest, Release},
};
use messaging::Commit;
use proptest::prelude::*;

use crate::house::{EVENT, House, paid, payment, payment_id};

#[derive(Debug, Clone)]
enum Step {
    Reserve(i64),
    Pay(usize),
    /// The payment is cancelled at the gateway.
    Withdraw(usize),
    /// A saga has refunded it.
    CancelTicket(usize),
    /// A purchase that had turned back says so late.
    Release(usize),
    /// The word that it was paid is heard again.
    PaidAgain(usize),
    Lapse,
    Offer(i64),
    Work,
    Restart,
    /// What the backend can lose is lost.
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
        2 => Just(Step::Lapse),
        1 => (0..4_i64).prop_map(Step::Offer),
        4 => Just(Step::Work),
        1 => Just(Step::Restart),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 1..50)
}

/// A reservation, and what its payment has become.
#[derive(Debug, Clone, Copy)]
struct Bid {
    ticket: TicketId,
    user: i64,
    version: i64,
    status: PaymentStatus,
}

struct Play {
    house: House,
    bids: Vec<Bid>,
    event_version: i64,
}

impl Play {
    async fn act(&mut self, step: Step) {
        match step {
            Step::Reserve(user) => self.reserve(user).await,
            Step::Pay(which) => {
                if let Some(bid) =
                    self.turn(which, PaymentStatus::Created, PaymentStatus::Succeeded)
                {
                    self.house
                        .say(&paid(bid.ticket, bid.user, bid.version))
                        .await;
                }
            }
            Step::Withdraw(which) => self.withdraw(which).await,
            Step::CancelTicket(which) => self.cancel_ticket(which).await,
            Step::Release(which) => self.release(which).await,
            Step::PaidAgain(which) => {
                if let Some(bid) = self.bids.get(which).filter(|bid| bid.version >= 3).copied() {
                    self.house.say(&paid(bid.ticket, bid.user, 3)).await;
                }
            }
            Step::Lapse => {
                self.house.lapse_clock();
                self.house.service.expire_due().await.unwrap();
            }
            Step::Offer(quantity) => {
                self.event_version += 1;
                self.house.event(quantity, self.event_version).await;
            }
            Step::Work => self.house.work().await,
            Step::Restart => self.house.restart().await,
            Step::Lose => crate::backend::lose(&self.house.settings).await,
        }
    }

    async fn reserve(&mut self, user: i64) {
        let reserving = self.house.service.reserving(EVENT, UserId(user));
        let reserved = self.house.service.reserve(reserving, Commit::new()).await;
        if reserved.is_ok() {
            self.bids.push(Bid {
                ticket: reserving.ticket_id,
                user,
                version: 2,
                status: PaymentStatus::Created,
            });
        }
    }

    /// Moves a payment on; `None` where it is in another state.
    fn turn(&mut self, which: usize, from: PaymentStatus, to: PaymentStatus) -> Option<Bid> {
        let bid = self.bids.get_mut(which).filter(|bid| bid.status == from)?;
        bid.status = to;
        bid.version += 1;
        Some(*bid)
    }

    async fn withdraw(&mut self, which: usize) {
        let (from, to) = (PaymentStatus::Succeeded, PaymentStatus::Cancelled);
        if let Some(bid) = self.turn(which, from, to) {
            let told = payment(bid.ticket, bid.user, bid.version, (to, Refund::Done));
            self.house.say(&told).await;
        }
    }

    async fn cancel_ticket(&mut self, which: usize) {
        let Some(bid) = self.bids.get(which).copied() else {
            return;
        };
        // Its saga asks only for a ticket that was issued, and once its money is back.
        let status = self.house.ticket_status(bid.ticket).await;
        if status != Some(TicketStatus::Reserved) {
            return;
        }
        self.withdraw(which).await;
        self.house
            .say(&CancelTicketRequest {
                saga_id: bid.ticket.cancel_saga(1),
                ticket_id: bid.ticket,
                event_id: EVENT,
                user_id: UserId(bid.user),
            })
            .await;
    }

    async fn release(&mut self, which: usize) {
        let Some(bid) = self.bids.get(which).copied() else {
            return;
        };
        // A purchase turns back only where it is not paid, or where its reservation has lapsed.
        if bid.status == PaymentStatus::Created {
            self.house
                .say(&Release {
                    ticket_id: bid.ticket,
                    event_id: EVENT,
                    user_id: UserId(bid.user),
                })
                .await;
        }
    }

    /// Everybody works until nothing is left to do; the payments that are to go back do.
    async fn settle(&mut self) {
        loop {
            self.house.work().await;
            let asked: Vec<_> = self.house.published::<CancelRequest>();
            let is_asked = |bid: &Bid| {
                bid.status == PaymentStatus::Succeeded
                    && asked
                        .iter()
                        .any(|it| it.payment_id == payment_id(bid.ticket))
            };
            let Some(which) = self.bids.iter().position(is_asked) else {
                return;
            };
            self.withdraw(which).await;
        }
    }

    async fn check(&self) {
        self.house.check_books().await;
        let mut owners: BTreeMap<i64, TicketId> = BTreeMap::new();
        for bid in &self.bids {
            let status = self.house.ticket_status(bid.ticket).await;
            let is_owned = status == Some(TicketStatus::Reserved);
            assert_eq!(
                is_owned,
                bid.status == PaymentStatus::Succeeded,
                "money and ticket of {bid:?}"
            );
            if is_owned {
                assert_eq!(
                    owners.insert(bid.user, bid.ticket),
                    None,
                    "one for each user"
                );
            }
        }
    }
}

async fn play(steps: Vec<Step>) {
    let mut play = Play {
        house: House::with_quantity(3).await,
        bids: Vec::new(),
        event_version: 1,
    };
    for step in steps {
        play.act(step).await;
    }
    play.settle().await;
    play.check().await;
    play.house.restart().await;
    play.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_of_payments_ends_with_a_ticket_for_the_money_or_the_money_back(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(play(steps));
    }
}
