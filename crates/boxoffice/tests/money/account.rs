//! Buyers who pay by virtual account, and their bank.

use messaging::Clock;

use crate::{
    buyer::{Buyer, Started},
    plan::Deposit,
};

/// How much later than the deadline a late deposit comes, and a little more.
const LATE_MILLIS: i64 = 100;

impl Buyer<'_> {
    pub async fn deposit(&self, started: &Started, deposit: Deposit) -> Option<()> {
        let gateway = &self.house.gateway;
        let key = self.part.key(1);
        // Points may have paid for everything.
        if started.amount > 0 {
            gateway
                .request_account(&started.payment, &key, started.amount)
                .await;
        }
        self.confirm(started, 1).await?;
        match deposit {
            Deposit::Never => return Some(()),
            Deposit::Released => self.release(started).await.map(drop)?,
            Deposit::TooLate => {
                let at = started
                    .expires_at
                    .plus_millis(LATE_MILLIS + self.part.millis);
                Clock::System.wait_until(at).await;
                gateway.act(&key, "deposit").await;
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
                gateway.act(&key, "deposit").await;
            }
            Deposit::Cancelled => {
                self.settled(started).await?;
                self.cancel(started, 1).await?;
            }
        }
        Some(())
    }

    /// Some banks are faster than the news of the deposit.
    async fn withdraw(&self, started: &Started) -> Option<()> {
        if self.part.millis % 2 == 0 {
            self.settled(started).await?;
        }
        self.bank(started, "withdraw").await
    }

    /// The bank does it as soon as it can be done; `None` where it never can.
    async fn bank(&self, started: &Started, deed: &str) -> Option<()> {
        let key = self.part.key(1);
        let path = format!("/payment/{}", started.payment);
        let doing = || async {
            if self.house.gateway.act(&key, deed).await {
                return Some(true);
            }
            let told = self.house.get(&path).await;
            (told.text("status") != Some("CONFIRMING")).then_some(false)
        };
        self.until(doing).await?.then_some(())
    }
}
