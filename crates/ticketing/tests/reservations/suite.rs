//! The contract of every reservations backend: who gets a ticket, and that nothing is sold twice or lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use contract::{EventId, Money, Points, TicketId, Timestamp, UserId, ticketing::Expire};
use futures::{FutureExt, poll};
use messaging::{Commit, Message, Metrics, Random, Records, Store};
use proptest::prelude::*;
use tempfile::TempDir;
use test_support::{Polling, eventually};
use ticketing::{
    Reservations,
    model::{Allocation, Purchase, ReservationRecord, ReservationState},
    reservations::{
        ClaimId, ClaimProof, Completion, Deadlines, DueClaim, Error, Granted, Refusal, Reservation,
        ReserveRequest, Stats,
    },
    reserve::ReserveOutput,
};

use crate::backend::Backend;

pub const EVENT: EventId = EventId(1);
pub const TTL_MILLIS: i64 = 1_000;
/// Of a deployment's ticket ids.
pub const SEED: u64 = 7;

/// A test that waits longer has failed.
pub const POLLING: Polling = Polling {
    interval: Duration::from_millis(1),
    timeout: Duration::from_secs(20),
};

/// Waits until this holds.
pub async fn until(awaited: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually(POLLING, awaited, async || {
        holds().await.then_some(()).ok_or("it does not hold")
    })
    .await;
}

/// A store with one event, and the reservations over it.
pub struct Deployment {
    folder: TempDir,
    pub backend: Backend,
    random: Random,
    reservations: Option<Reservations>,
}

impl Deployment {
    pub async fn with_quantity(quantity: i64) -> Self {
        Self::on(Backend::new(TTL_MILLIS), quantity).await
    }

    pub async fn on(backend: Backend, quantity: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        Self::over(folder, store, backend, quantity).await
    }

    /// Over a store outside the folder.
    pub async fn over(folder: TempDir, store: Store, backend: Backend, quantity: i64) -> Self {
        let reservations = backend.open(store.clone()).await;
        let mut commit = reservations.set_sale(&sale(quantity, 1)).await.unwrap();
        commit.put(&sale(quantity, 1));
        store.commit(commit).await.unwrap();
        let reservations = Some(reservations);
        Self {
            folder,
            backend,
            random: Random::seeded(SEED),
            reservations,
        }
    }

    pub fn reservations(&self) -> &Reservations {
        self.reservations.as_ref().unwrap()
    }

    /// The process restarts: what is in memory is rebuilt.
    pub async fn restart(&mut self) {
        self.reservations = None;
        self.reservations = Some(self.backend.open(reopen(&self.folder).await).await);
    }

    pub async fn reserve(&self, user: i64, now: Timestamp) -> Result<TicketId, Error> {
        self.reserve_with(user, now, Commit::new()).await
    }

    pub async fn reserve_with(
        &self,
        user: i64,
        now: Timestamp,
        also: Commit,
    ) -> Result<TicketId, Error> {
        self.reserve_on(self.reservations(), user, now, also).await
    }

    /// On any process of the same deployment.
    pub async fn reserve_on(
        &self,
        reservations: &Reservations,
        user: i64,
        now: Timestamp,
        also: Commit,
    ) -> Result<TicketId, Error> {
        let request = self.request(user, now, also);
        let ticket_id = request.claim.ticket_id;
        reservations.reserve(request, now).await?;
        Ok(ticket_id)
    }

    fn request(&self, user: i64, now: Timestamp, also: Commit) -> ReserveRequest {
        let lapses_at = now.plus_millis(TTL_MILLIS);
        ReserveRequest {
            claim: claim_id(user, TicketId(self.random.uuid(now))),
            deadlines: Deadlines {
                expires_at: lapses_at,
                lapses_at,
            },
            also,
        }
    }

    /// A keyed request: the ticket that it named, and how it was granted.
    async fn reserve_keyed(
        &self,
        user: i64,
        now: Timestamp,
        key: [u8; 6],
    ) -> Result<(TicketId, Granted), Error> {
        self.reserve_keyed_with(user, now, key, Commit::new()).await
    }

    pub async fn reserve_keyed_with(
        &self,
        user: i64,
        now: Timestamp,
        key: [u8; 6],
        also: Commit,
    ) -> Result<(TicketId, Granted), Error> {
        let mut request = self.request(user, now, also);
        let ticket_id = TicketId::of_request(request.claim.ticket_id.0, key);
        request.claim.ticket_id = ticket_id;
        let granted = self.reservations().reserve(request, now).await?;
        Ok((ticket_id, granted))
    }

    pub async fn expire(&self, now: Timestamp) -> Vec<ClaimId> {
        self.reservations()
            .expire(now, 100, |_| Commit::new())
            .await
            .unwrap()
            .freed
    }

    /// What a payment does that succeeds after its claim is gone.
    pub async fn retake(&self, user: i64, ticket_id: TicketId, now: Timestamp) -> Completion {
        let claims = [claim_id(user, ticket_id)];
        self.reservations().retake(&claims, now).await.unwrap();
        let mut completions = self.reservations().complete(&claims).await.unwrap();
        completions.remove(0)
    }

    /// Makes a completion durable, over the stored row if there is one.
    pub async fn save(&self, ticket_id: TicketId, proof: ClaimProof) {
        let stored: Option<ReservationRecord> = store(self).load(ticket_id).await.unwrap();
        // `with` counts the version up, as storing does.
        let records = stored.into_iter().fold(Records::default(), |records, row| {
            let version = row.version - 1;
            records.with(&ReservationRecord { version, ..row })
        });
        let mut commit = Commit::new();
        proof.attach_to(&mut commit, &records).unwrap();
        store(self).commit(commit).await.unwrap();
    }

    pub async fn stats(&self) -> Stats {
        self.reservations().stats(EVENT).await.unwrap().unwrap()
    }

    pub async fn find(&self, user: i64) -> Option<Reservation> {
        self.reservations().find(EVENT, UserId(user)).await.unwrap()
    }
}

fn open(folder: &TempDir) -> Store {
    let tables: Vec<_> = messaging::TABLES
        .iter()
        .chain(ticketing::TABLES)
        .copied()
        .collect();
    Store::open_embedded(folder.path(), &tables, Metrics::unregistered()).unwrap()
}

/// Retries: a background task whose caller was dropped closes the store a moment later.
async fn reopen(folder: &TempDir) -> Store {
    let tables: Vec<_> = messaging::TABLES
        .iter()
        .chain(ticketing::TABLES)
        .copied()
        .collect();
    for _ in 0..10_000 {
        let opened = Store::open_embedded(folder.path(), &tables, Metrics::unregistered());
        if let Ok(store) = opened {
            return store;
        }
        tokio::task::yield_now().await;
    }
    panic!("the store is still open elsewhere")
}

pub fn sale(quantity: i64, event_version: i64) -> Allocation {
    Allocation {
        event_id: EVENT,
        quantity,
        lowered_to: None,
        sold: 0,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version,
        version: 0,
    }
}

pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub fn claim_id(user: i64, ticket_id: TicketId) -> ClaimId {
    ClaimId {
        event_id: EVENT,
        user_id: UserId(user),
        ticket_id,
    }
}

#[tokio::test]
async fn a_ticket_is_granted_once_and_every_refusal_has_its_name() {
    let deployment = Deployment::with_quantity(2).await;
    let first = deployment.reserve(1, at(0)).await.unwrap();
    assert_eq!(
        deployment.reserve(1, at(0)).await,
        Err(Refusal::AlreadyReserved.into())
    );
    let done = deployment
        .reservations()
        .complete(&[claim_id(1, first)])
        .await
        .unwrap();
    assert!(matches!(done[..], [Completion::Completed(_)]));
    assert_eq!(
        deployment.reserve(1, at(0)).await,
        Err(Refusal::AlreadyPurchased.into())
    );
    deployment.reserve(2, at(0)).await.unwrap();
    assert_eq!(
        deployment.reserve(3, at(0)).await,
        Err(Refusal::SoldOut.into())
    );
    assert_eq!(
        deployment.stats().await,
        Stats {
            quantity: 2,
            waiting: 1,
            completed: 1,
            available: 0
        }
    );
}

#[tokio::test]
async fn nothing_is_sold_before_the_sale_opens_or_after_it_closes() {
    let deployment = Deployment::with_quantity(2).await;
    let window = Allocation {
        sale_opens_at: Some(at(10)),
        sale_closes_at: Some(at(20)),
        ..sale(2, 2)
    };
    deployment.reservations().set_sale(&window).await.unwrap();
    assert_eq!(
        deployment.reserve(1, at(9)).await,
        Err(Refusal::SaleNotOpen.into())
    );
    assert_eq!(
        deployment.reserve(1, at(20)).await,
        Err(Refusal::SaleNotOpen.into())
    );
    assert!(deployment.reserve(1, at(10)).await.is_ok());
}

#[tokio::test]
async fn the_price_is_agreed_when_a_ticket_is_reserved() {
    let mut deployment = Deployment::with_quantity(3).await;
    let [fifty, sixty] = [50_000, 60_000].map(|price| Money::new(price).ok());
    let priced = async |deployment: &Deployment, price, event_version| {
        let known: Option<Allocation> = store(deployment).load(EVENT).await.unwrap();
        let sale = Allocation {
            price,
            version: known.unwrap().version,
            ..sale(3, event_version)
        };
        let mut commit = deployment.reservations().set_sale(&sale).await.unwrap();
        commit.put(&sale);
        store(deployment).commit(commit).await.unwrap();
    };
    // No price when the first buyer reserves: the buyer names it, even if the event gets a price later.
    deployment.reserve(1, at(0)).await.unwrap();
    priced(&deployment, fifty, 2).await;
    deployment.reserve(2, at(0)).await.unwrap();
    priced(&deployment, sixty, 3).await;
    deployment.reserve(3, at(0)).await.unwrap();
    for _ in 0..2 {
        for (user, price) in [(1, None), (2, fifty), (3, sixty)] {
            assert_eq!(deployment.find(user).await.unwrap().price, price);
        }
        deployment.restart().await;
    }
    let done = deployment.expire(at(TTL_MILLIS)).await;
    assert_eq!(done.len(), 3, "a claim with a price expires like any");
}

#[tokio::test]
async fn an_answered_reservation_survives_a_restart_with_its_deadline() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.restart().await;
    let held = deployment.find(1).await.unwrap();
    assert_eq!(
        (held.ticket_id, held.state, held.expires_at),
        (ticket, ReservationState::Waiting, at(TTL_MILLIS))
    );
    assert_eq!(
        deployment.reserve(2, at(0)).await,
        Err(Refusal::SoldOut.into())
    );
}

#[tokio::test]
async fn an_expired_reservation_can_be_bought_again_and_expires_exactly_once() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    assert_eq!(deployment.expire(at(TTL_MILLIS - 1)).await, []);
    assert_eq!(
        deployment.expire(at(TTL_MILLIS)).await,
        [claim_id(1, ticket)]
    );
    assert_eq!(deployment.expire(at(TTL_MILLIS)).await, []);
    deployment.restart().await;
    assert_eq!(
        deployment.expire(at(TTL_MILLIS)).await,
        [],
        "the expiry is durable"
    );
    assert!(deployment.reserve(2, at(TTL_MILLIS)).await.is_ok());
}

#[tokio::test]
async fn the_message_about_an_expiry_is_committed_with_it() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let publish = |DueClaim { claim, lapses_at }: DueClaim| {
        assert_eq!(lapses_at, at(TTL_MILLIS));
        let expire = Expire {
            ticket_id: claim.ticket_id,
            event_id: EVENT,
            user_id: claim.user_id,
        };
        let mut commit = Commit::new();
        commit.publish(Message::new("expired", &expire, at(TTL_MILLIS)));
        commit
    };
    deployment
        .reservations()
        .expire(at(TTL_MILLIS), 10, publish)
        .await
        .unwrap();
    let bus = messaging::Bus::Local(store(&deployment).clone());
    let published = bus
        .subscribe("test", &["ticketing.expire"])
        .unwrap()
        .try_next(10)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        published.messages[0].parse::<Expire>().unwrap().ticket_id,
        ticket_id
    );
}

#[tokio::test]
async fn a_release_frees_only_the_ticket_that_it_names() {
    let deployment = Deployment::with_quantity(1).await;
    let earlier = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let later = deployment.reserve(1, at(TTL_MILLIS)).await.unwrap();
    // A late compensation of the earlier purchase must not release the user's current reservation.
    deployment
        .reservations()
        .release(&[claim_id(1, earlier)])
        .await
        .unwrap();
    assert_eq!(deployment.find(1).await.unwrap().ticket_id, later);
    deployment
        .reservations()
        .release(&[claim_id(1, later)])
        .await
        .unwrap();
    assert_eq!(deployment.stats().await.available, 1);
}

/// A Commit that conflicts in the store: the event exists.
pub fn conflicting() -> Commit {
    let mut commit = Commit::new();
    commit.put(&sale(9, 9));
    commit
}

#[tokio::test]
async fn a_release_that_is_not_stored_leaves_the_claim_waiting_until_it_expires() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let claim = claim_id(1, ticket_id);
    let before = deployment.find(1).await.unwrap();

    let released = deployment
        .reservations()
        .release_by_buyer(claim, |_| conflicting())
        .await;

    assert!(released.is_err(), "{released:?}");
    let after = deployment.find(1).await;
    assert_eq!(after, Some(before));
    assert_eq!(deployment.stats().await.waiting, 1);
    assert_eq!(deployment.expire(at(TTL_MILLIS)).await, [claim]);
    let stored: Option<ReservationRecord> = store(&deployment).load(ticket_id).await.unwrap();
    assert_eq!(stored, None);
}

/// What happens between the look for a purchase and the Commit of a release.
pub fn while_releasing(work: impl Future<Output = ()>) {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_began_before_its_claim_is_released_is_released_with_it_and_none_begins_after()
 {
    let deployment = Arc::new(Deployment::with_quantity(1).await);
    let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());
    let begun = start_purchase(&deployment, claim.ticket_id, 1).await;

    let inside = Arc::clone(&deployment);
    let also = move |purchase: Option<Purchase>| {
        while_releasing(async {
            assert_eq!(inside.find(1).await, None);
            let completed = inside.reservations().complete(&[claim]).await.unwrap();
            assert!(matches!(completed[..], [Completion::Gone]), "{completed:?}");
            let again = inside
                .reservations()
                .release_by_buyer(claim, |_| Commit::new());
            assert_eq!(again.await, Ok(false));
            assert_eq!(inside.stats().await.waiting, 1);
        });
        released(purchase.expect("it began before"))
    };
    let done = deployment.reservations().release_by_buyer(claim, also);

    assert_eq!(done.await, Ok(true));
    let stored: Option<Purchase> = store(&deployment).load(claim.ticket_id).await.unwrap();
    assert!(stored.unwrap().released_at > begun.released_at);
    assert_eq!(deployment.stats().await.available, 1);
}

/// The Commit that releases this purchase.
pub fn released(purchase: Purchase) -> Commit {
    let mut commit = Commit::new();
    commit.put(&Purchase {
        released_at: Some(at(1)),
        ..purchase
    });
    commit
}

#[tokio::test]
async fn a_claim_that_is_gone_cannot_be_completed() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let done = deployment
        .reservations()
        .complete(&[claim_id(1, ticket)])
        .await
        .unwrap();
    assert!(matches!(done[..], [Completion::Gone]));
}

#[tokio::test]
async fn completing_again_changes_nothing() {
    let deployment = Deployment::with_quantity(2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    for _ in 0..2 {
        let done = deployment
            .reservations()
            .complete(&[claim_id(1, ticket)])
            .await
            .unwrap();
        assert!(matches!(done[..], [Completion::Completed(_)]));
        assert_eq!(
            deployment.stats().await,
            Stats {
                quantity: 2,
                waiting: 0,
                completed: 1,
                available: 1
            }
        );
    }
    assert_eq!(
        deployment.expire(at(TTL_MILLIS)).await,
        [],
        "a completed claim never expires"
    );
}

#[tokio::test]
async fn an_expired_claim_is_retaken_if_a_ticket_is_left_and_only_once() {
    let mut deployment = Deployment::with_quantity(2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let after = Allocation {
        sale_closes_at: Some(at(1)),
        ..sale(2, 2)
    };
    deployment.reservations().set_sale(&after).await.unwrap();

    // A commit that conflicts is decided again.
    for _ in 0..2 {
        let Completion::Completed(proof) = deployment.retake(1, ticket, at(TTL_MILLIS)).await
        else {
            panic!("one ticket is left")
        };
        if let ClaimProof::Row(row) = proof {
            assert_eq!(
                (row.ticket_id, row.state),
                (ticket, ReservationState::Completed)
            );
        }
        let stats = deployment.stats().await;
        assert_eq!((stats.completed, stats.available), (1, 1));
    }
    let Completion::Completed(proof) = deployment.retake(1, ticket, at(TTL_MILLIS)).await else {
        panic!("it is completed already")
    };
    deployment.save(ticket, proof).await;
    deployment.restart().await;
    assert_eq!(deployment.stats().await.completed, 1);
    assert_eq!(deployment.expire(at(9 * TTL_MILLIS)).await, []);
}

#[tokio::test]
async fn a_retaken_claim_that_is_never_completed_expires_a_minute_later() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;

    // The process that retook it died, or was paused while another decided.
    let claims = [claim_id(1, ticket)];
    let (reservations, now) = (deployment.reservations(), at(TTL_MILLIS));
    reservations.retake(&claims, now).await.unwrap();
    let stats = deployment.stats().await;
    assert_eq!((stats.completed, stats.available), (0, 0));

    let in_a_minute = now.plus_secs(60);
    assert_eq!(deployment.expire(in_a_minute).await, claims);
    assert_eq!(deployment.stats().await.available, 1);
}

pub async fn start_purchase(deployment: &Deployment, ticket_id: TicketId, user: i64) -> Purchase {
    let purchase = Purchase {
        ticket_id,
        event_id: EVENT,
        user_id: UserId(user),
        total_amount: Money::new(100).unwrap(),
        point: Points::ZERO,
        expires_at: at(TTL_MILLIS),
        requested_at: at(0),
        released_at: None,
        version: 0,
    };
    let mut commit = Commit::new();
    commit.put(&purchase);
    store(deployment).commit(commit).await.unwrap();
    purchase
}

#[tokio::test]
async fn an_expired_claim_whose_purchase_has_begun_stays_and_is_due_every_minute_until_it_is_released()
 {
    let mut deployment = Deployment::with_quantity(3).await;
    let begun = deployment.reserve(1, at(0)).await.unwrap();
    let released = deployment.reserve(2, at(0)).await.unwrap();
    let unbegun = deployment.reserve(3, at(0)).await.unwrap();
    start_purchase(&deployment, begun, 1).await;
    let purchase = start_purchase(&deployment, released, 2).await;
    let mut commit = Commit::new();
    commit.put(&Purchase {
        released_at: Some(at(1)),
        version: 1,
        ..purchase
    });
    store(&deployment).commit(commit).await.unwrap();

    let due = async |deployment: &Deployment, now: Timestamp| {
        let published = std::sync::Mutex::new(Vec::new());
        let publish = |due: DueClaim| {
            published.lock().unwrap().push(due.lapses_at);
            Commit::new()
        };
        let expired = deployment.reservations().expire(now, 10, publish).await;
        (expired.unwrap(), published.into_inner().unwrap())
    };
    let (mut expired, _) = due(&deployment, at(TTL_MILLIS)).await;
    expired.freed.sort();
    let mut freed = [claim_id(2, released), claim_id(3, unbegun)];
    freed.sort();
    assert_eq!(expired.freed, freed);
    assert_eq!(expired.closing, [claim_id(1, begun)]);
    assert_eq!(deployment.stats().await.waiting, 1);

    let next = at(TTL_MILLIS).plus_secs(60);
    let (expired, _) = due(&deployment, next.plus_millis(-1)).await;
    assert!(expired.is_empty(), "it is not due all the time");
    let (expired, published) = due(&deployment, next).await;
    assert_eq!(expired.closing, [claim_id(1, begun)]);
    assert_eq!(published, [next], "each expiry has a message id of its own");
    assert_eq!(
        deployment.reserve(1, next).await,
        Err(Refusal::AlreadyReserved.into())
    );

    deployment.restart().await;
    let much_later = next.plus_secs(3_600);
    let (expired, _) = due(&deployment, much_later).await;
    assert_eq!(
        expired.closing,
        [claim_id(1, begun)],
        "it stays over a restart"
    );
    let reservations = deployment.reservations();
    let commits = reservations.release_unpaid(&[claim_id(1, begun)]).await;
    store(&deployment)
        .commit(commits.unwrap().remove(0))
        .await
        .unwrap();
    assert_eq!(deployment.stats().await.available, 3);
    let (expired, _) = due(&deployment, much_later.plus_secs(3_600)).await;
    assert!(expired.is_empty(), "{expired:?}");
}

#[tokio::test]
async fn no_claim_is_retaken_if_all_is_sold_or_its_user_has_another() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let next = deployment.reserve(2, at(TTL_MILLIS)).await.unwrap();
    let refused = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(matches!(refused, Completion::Gone), "it is sold out");

    deployment
        .reservations()
        .release(&[claim_id(2, next)])
        .await
        .unwrap();
    let later = deployment.reserve(1, at(TTL_MILLIS)).await.unwrap();
    deployment
        .reservations()
        .set_sale(&sale(2, 2))
        .await
        .unwrap();
    let refused = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(
        matches!(refused, Completion::Gone),
        "the user has {later} already"
    );
}

#[tokio::test]
async fn a_completed_claim_is_not_released_with_a_compensated_purchase() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment
        .reservations()
        .complete(&[claim_id(1, ticket)])
        .await
        .unwrap();

    let unpaid = deployment
        .reservations()
        .release_unpaid(&[claim_id(1, ticket)])
        .await
        .unwrap();
    assert!(unpaid[0].deletes.is_empty());
    assert_eq!(deployment.stats().await.completed, 1);

    let released = deployment
        .reservations()
        .release(&[claim_id(1, ticket)])
        .await
        .unwrap();
    let rows = usize::from(crate::backend::CLAIMS_ARE_ROWS);
    assert_eq!(released[0].deletes.len(), rows);
    assert_eq!(deployment.stats().await.available, 1);
}

#[tokio::test]
async fn a_quantity_update_is_applied_and_an_older_one_ignored() {
    let deployment = Deployment::with_quantity(1).await;
    deployment.reserve(1, at(0)).await.unwrap();
    deployment
        .reservations()
        .set_sale(&sale(3, 3))
        .await
        .unwrap();
    deployment
        .reservations()
        .set_sale(&sale(9, 2))
        .await
        .unwrap();
    assert_eq!(
        deployment.stats().await,
        Stats {
            quantity: 3,
            waiting: 1,
            completed: 0,
            available: 2
        }
    );
}

#[tokio::test]
async fn a_repeated_keyed_request_is_granted_the_claim_that_still_waits() {
    let mut deployment = Deployment::with_quantity(2).await;
    let (first, how) = deployment
        .reserve_keyed(1, at(0), *b"thekey")
        .await
        .unwrap();
    assert_eq!(how, Granted::Now);
    let before = Granted::Before(ReserveOutput {
        ticket_id: first,
        expires_at: at(TTL_MILLIS),
    });
    for _ in 0..2 {
        let (named, how) = deployment
            .reserve_keyed(1, at(10), *b"thekey")
            .await
            .unwrap();
        assert_ne!(named, first);
        assert_eq!(how, before);
        assert_eq!(deployment.stats().await.waiting, 1);
        deployment.restart().await;
    }
    assert_eq!(
        deployment.reserve_keyed(1, at(10), *b"others").await,
        Err(Refusal::AlreadyReserved.into())
    );
    let (_, how) = deployment
        .reserve_keyed(2, at(10), *b"thekey")
        .await
        .unwrap();
    assert_eq!(
        how,
        Granted::Now,
        "the same key of another user is another request"
    );

    deployment
        .reservations()
        .complete(&[claim_id(1, first)])
        .await
        .unwrap();
    assert_eq!(
        deployment.reserve_keyed(1, at(10), *b"thekey").await,
        Err(Refusal::AlreadyPurchased.into())
    );
}

#[tokio::test]
async fn a_keyed_request_whose_claim_is_gone_is_granted_another_ticket() {
    let deployment = Deployment::with_quantity(1).await;
    let (first, _) = deployment
        .reserve_keyed(1, at(0), *b"thekey")
        .await
        .unwrap();
    // It expires however often it was granted again.
    deployment
        .reserve_keyed(1, at(0), *b"thekey")
        .await
        .unwrap();
    let expired = deployment.expire(at(TTL_MILLIS + 1)).await;
    assert_eq!(expired, [claim_id(1, first)]);
    let (second, how) = deployment
        .reserve_keyed(1, at(0), *b"thekey")
        .await
        .unwrap();
    assert_eq!(how, Granted::Now);

    let claims = [claim_id(1, second)];
    deployment.reservations().release(&claims).await.unwrap();
    let (third, how) = deployment
        .reserve_keyed(1, at(0), *b"thekey")
        .await
        .unwrap();
    assert_eq!(how, Granted::Now);
    assert_eq!(
        std::collections::HashSet::from([first, second, third]).len(),
        3
    );
    let held = deployment.find(1).await.unwrap();
    assert_eq!(held.ticket_id, third);
}

#[tokio::test]
async fn a_grant_survives_its_dropped_caller() {
    let mut deployment = Deployment::with_quantity(1).await;
    let request = deployment.request(1, at(0), Commit::new());
    // Polled once, then dropped.
    let mut reserving = deployment.reservations().reserve(request, at(0)).boxed();
    let _ = poll!(&mut reserving);
    drop(reserving);
    until("the grant is made", async || {
        deployment.stats().await.waiting == 1
    })
    .await;
    deployment.restart().await;
    assert_eq!(deployment.stats().await.waiting, 1);
}

#[tokio::test]
async fn of_many_concurrent_requests_exactly_as_many_as_tickets_are_granted() {
    let deployment = Deployment::with_quantity(10).await;
    let requests = (0..200).map(|user| deployment.reserve(user, at(0)));
    let answers = futures::future::join_all(requests).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(_) | Err(Error::Refused(Refusal::SoldOut))))
    );
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(i64),
    Complete(i64),
    Release(i64),
    Retake(i64),
    ReleaseByBuyer(i64),
    Wait(i64),
    Resize(i64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0..6_i64;
    let step = prop_oneof![
        6 => user.clone().prop_map(Step::Reserve),
        2 => user.clone().prop_map(Step::Complete),
        2 => user.clone().prop_map(Step::Release),
        2 => user.clone().prop_map(Step::Retake),
        1 => user.prop_map(Step::ReleaseByBuyer),
        2 => (1..700_i64).prop_map(Step::Wait),
        1 => (0..5_i64).prop_map(Step::Resize),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// The expected state, as a simple model.
#[derive(Default)]
struct Expected {
    claims: HashMap<i64, (TicketId, ReservationState, Timestamp)>,
    /// The last ticket of each user that expired or was released.
    gone: HashMap<i64, TicketId>,
    quantity: i64,
    offered: i64,
}

impl Expected {
    fn count(&self, state: ReservationState) -> i64 {
        self.claims
            .values()
            .filter(|claim| claim.1 == state)
            .count() as i64
    }

    fn stats(&self) -> Stats {
        let (waiting, completed) = (
            self.count(ReservationState::Waiting),
            self.count(ReservationState::Completed),
        );
        Stats {
            quantity: self.quantity,
            waiting,
            completed,
            available: self.quantity - waiting - completed,
        }
    }
}

async fn run(steps: Vec<Step>) {
    let mut deployment = Deployment::with_quantity(3).await;
    let mut expected = Expected {
        quantity: 3,
        offered: 3,
        ..Expected::default()
    };
    let (mut now, mut version) = (at(0), 1);
    for step in steps {
        match step {
            Step::Reserve(user) => {
                let can = !expected.claims.contains_key(&user) && expected.stats().available > 0;
                let answer = deployment.reserve(user, now).await;
                assert_eq!(answer.is_ok(), can, "{answer:?}");
                if let Ok(ticket) = answer {
                    let claim = (
                        ticket,
                        ReservationState::Waiting,
                        now.plus_millis(TTL_MILLIS),
                    );
                    expected.claims.insert(user, claim);
                }
            }
            Step::Complete(user) => {
                let Some(claim) = expected.claims.get_mut(&user) else {
                    continue;
                };
                claim.1 = ReservationState::Completed;
                let done = deployment
                    .reservations()
                    .complete(&[claim_id(user, claim.0)])
                    .await
                    .unwrap()
                    .pop();
                let Some(Completion::Completed(proof)) = done else {
                    panic!("a claim that waits was refused")
                };
                let ticket = claim.0;
                deployment.save(ticket, proof).await;
            }
            Step::Retake(user) => {
                let Some(ticket) = expected.gone.get(&user).copied() else {
                    continue;
                };
                let can = !expected.claims.contains_key(&user) && expected.stats().available > 0;
                match deployment.retake(user, ticket, now).await {
                    Completion::Completed(proof) => {
                        assert!(can, "there was no ticket to retake");
                        deployment.save(ticket, proof).await;
                        expected.gone.remove(&user);
                        let claim = (ticket, ReservationState::Completed, now);
                        expected.claims.insert(user, claim);
                    }
                    Completion::Gone => assert!(!can, "there was a ticket to retake"),
                }
            }
            Step::Release(user) => {
                let Some(claim) = expected.claims.remove(&user) else {
                    continue;
                };
                // Waiting claims and completed ones alike.
                let mut commit = deployment
                    .reservations()
                    .release(&[claim_id(user, claim.0)])
                    .await
                    .unwrap()
                    .remove(0);
                expected.gone.insert(user, claim.0);
                let floor = expected
                    .offered
                    .max(expected.count(ReservationState::Completed));
                expected.quantity = expected.quantity.min(floor);
                commit.put(&Allocation {
                    quantity: expected.quantity,
                    ..load(&deployment).await
                });
                commit_now(&mut deployment, commit).await;
            }
            Step::ReleaseByBuyer(user) => {
                let Some(claim) = expected.claims.get(&user).copied() else {
                    continue;
                };
                let released = deployment
                    .reservations()
                    .release_by_buyer(claim_id(user, claim.0), |_| Commit::new())
                    .await
                    .unwrap();
                assert_eq!(
                    released,
                    claim.1 == ReservationState::Waiting,
                    "a paid claim cannot be released by its buyer"
                );
                if released {
                    expected.claims.remove(&user);
                    expected.gone.insert(user, claim.0);
                }
            }
            Step::Wait(millis) => {
                now = now.plus_millis(millis);
                let mut expired: Vec<_> = deployment.expire(now).await;
                let due = |claim: &(TicketId, ReservationState, Timestamp)| {
                    claim.1 == ReservationState::Waiting && claim.2 <= now
                };
                let mut should: Vec<_> = expected
                    .claims
                    .iter()
                    .filter(|(_, claim)| due(claim))
                    .map(|(user, claim)| claim_id(*user, claim.0))
                    .collect();
                let ended = should.iter().map(|it| (it.user_id.0, it.ticket_id));
                expected.gone.extend(ended);
                expected.claims.retain(|_, claim| !due(claim));
                expired.sort();
                should.sort();
                assert_eq!(expired, should);
            }
            Step::Resize(offered) => {
                version += 1;
                let quantity = offered.max(expected.count(ReservationState::Completed));
                (expected.quantity, expected.offered) = (quantity, offered);
                let mut commit = deployment
                    .reservations()
                    .set_sale(&sale(offered, version))
                    .await
                    .unwrap();
                let known: Allocation = load(&deployment).await;
                commit.put(&Allocation {
                    quantity,
                    lowered_to: (offered < quantity).then_some(offered),
                    event_version: version,
                    ..known
                });
                commit_now(&mut deployment, commit).await;
            }
            Step::Restart => deployment.restart().await,
        }
        assert_eq!(deployment.stats().await, expected.stats());
    }
}

async fn load(deployment: &Deployment) -> Allocation {
    store(deployment).load(EVENT).await.unwrap().unwrap()
}

pub fn store(deployment: &Deployment) -> &Store {
    deployment.reservations().store()
}

async fn commit_now(deployment: &mut Deployment, commit: Commit) {
    store(deployment).commit(commit).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Promises 2 and 3: after any history, restarts included, quantity = available + waiting + completed, and
    /// a ticket whose claim expired or was released can be reserved again.
    #[test]
    fn any_history_keeps_the_stock_exact(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
