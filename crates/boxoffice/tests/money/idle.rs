//! Waits until nothing is pending: in the service, at the gateway, or between them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use boxoffice::audit::Books;
use contract::domain::PaymentStatus;
use messaging::{
    Snapshot,
    dead_letters::{DeadLetterRecord, DeadLetterState},
};
use payment::record::{OrphanChargeRecord, Refund, WebhookRecord, WebhookState};
use test_support::{Polling, eventually};

use crate::service::{RestartableService, TIMEOUT};

/// How often the folder of a running service is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The books of all services, with the records that an audit does not read.
pub struct AllBooks {
    pub books: Books,
    pub strays: BTreeMap<String, OrphanChargeRecord>,
    pub dead_letters: Vec<DeadLetterRecord>,
    /// Webhooks that the gateway did not confirm.
    pub webhooks_ignored: usize,
    webhooks_received: usize,
}

impl AllBooks {
    pub fn read(folder: &Path) -> Self {
        let snapshot = Snapshot::open(boxoffice::backends::data_folder(folder)).unwrap();
        let mut strays = BTreeMap::new();
        let mut dead_letters = Vec::new();
        let mut webhooks_ignored = 0;
        let mut webhooks_received = 0;
        let books = Books::read(&snapshot).unwrap();
        snapshot
            .each(|it: OrphanChargeRecord| _ = strays.insert(it.pg_payment_id.clone(), it))
            .unwrap();
        snapshot
            .each(|it: DeadLetterRecord| dead_letters.push(it))
            .unwrap();
        snapshot
            .each(|it: WebhookRecord| match it.state {
                WebhookState::Received => webhooks_received += 1,
                WebhookState::Ignored => webhooks_ignored += 1,
                WebhookState::Handled => {}
            })
            .unwrap();
        Self {
            books,
            strays,
            dead_letters,
            webhooks_ignored,
            webhooks_received,
        }
    }

    /// Counts of everything that is pending.
    fn pending(&self) -> Vec<(&'static str, usize)> {
        let counts = self.books.counts();
        let payments = || self.books.payments.values();
        let confirming = payments().filter(|it| it.status == PaymentStatus::Confirming);
        let refunds = payments().filter(|it| it.refund == Refund::Requested);
        let strays = self.strays.values();
        let strays = strays.filter(|it| it.refund == Refund::Requested);
        let letters = self.dead_letters.iter();
        let letters = letters.filter(|it| {
            matches!(
                it.state,
                DeadLetterState::Waiting | DeadLetterState::Replayed
            )
        });
        vec![
            ("sagas", counts.open_sagas - counts.parked_sagas),
            ("messages", counts.messages_under_way),
            ("reservations", counts.waiting_reservations),
            ("payments", confirming.count()),
            ("refunds", refunds.count()),
            ("stray charges", strays.count()),
            ("dead letters", letters.count()),
            ("webhooks", self.webhooks_received),
        ]
    }
}

/// The books once nothing is pending.
pub async fn wait_until_idle(service: &RestartableService) -> AllBooks {
    let polling = Polling {
        interval: POLL_INTERVAL,
        timeout: TIMEOUT,
    };
    eventually(polling, "nothing is pending", async || {
        let webhooks = service.gateway.webhooks_pending();
        let all = AllBooks::read(service.path());
        let pending = all.pending();
        if webhooks == 0 && pending.iter().all(|(_, count)| *count == 0) {
            Ok(all)
        } else {
            Err(format!("{pending:?}, {webhooks} pending webhooks"))
        }
    })
    .await
}
