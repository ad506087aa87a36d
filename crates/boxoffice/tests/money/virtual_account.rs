//! Purchases that are paid by virtual account, and what the bank does with the deposit.

use messaging::Clock;

use crate::{
    buyer::{POLLS_MAX, ScenarioBuyer, Started},
    scenario::Deposit,
    service::POLL_INTERVAL,
};

/// Minimal time between the deadline and a late deposit.
const LATE_MILLIS: i64 = 100;

impl ScenarioBuyer<'_> {
    pub async fn deposit(&self, started: &Started, deposit: Deposit) -> Option<()> {
        let gateway = &self.service.gateway.client;
        let key = self.spec.key(1);
        // Points may pay for everything.
        if started.pending.amount > 0 {
            gateway
                .request_account(&started.pending.payment, &key, started.pending.amount)
                .await;
        }
        self.confirm(started, 1).await?;
        match deposit {
            Deposit::Never => return Some(()),
            Deposit::Released => self.release(started).await.map(drop)?,
            Deposit::TooLate => {
                let at = started
                    .expires_at
                    .plus_millis(LATE_MILLIS + self.spec.millis);
                Clock::System.wait_until(at).await;
                gateway.try_perform(&key, "deposit").await;
                return Some(());
            }
            Deposit::InTime | Deposit::Withdrawn | Deposit::Returned | Deposit::Cancelled => {}
        }
        self.bank(started, "deposit").await?;
        match deposit {
            Deposit::InTime | Deposit::TooLate | Deposit::Never | Deposit::Released => {}
            Deposit::Withdrawn => self.withdraw(started).await?,
            Deposit::Returned => {
                self.withdraw(started).await?;
                gateway.try_perform(&key, "deposit").await;
            }
            Deposit::Cancelled => {
                self.settled(started).await?;
                self.cancel(started, 1).await?;
            }
        }
        Some(())
    }

    /// For half of the buyers the bank withdraws before the service knows of the deposit.
    async fn withdraw(&self, started: &Started) -> Option<()> {
        if self.spec.millis % 2 == 0 {
            self.settled(started).await?;
        }
        self.bank(started, "withdraw").await
    }

    /// The bank performs the action as soon as it is possible; `None` if it never is.
    async fn bank(&self, started: &Started, action: &str) -> Option<()> {
        let key = self.spec.key(1);
        let path = format!("/payment/{}", started.pending.payment);
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        for _ in 0..POLLS_MAX {
            poll.tick().await;
            if self.service.gateway.client.can_perform(&key, action).await {
                return Some(());
            }
            let payment = self.service.get(&path).await;
            if payment.text_of("status") != Some("CONFIRMING") {
                return None;
            }
        }
        None
    }
}
