//! PostgreSQL becomes unavailable during a grant's commit, for longer than any caller waits.

use messaging::Commit;
use ticketing::{model::ReservationRecord, reservations::Granted};

use crate::{
    line::Cut,
    outage::{CuttableSchema, PATIENCE, deploy, is_unknown, open},
    suite::at,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_with_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_there) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;

        line.cut_for_long(cut);
        let asked = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(is_unknown(asked.as_ref().unwrap_err()), "{asked:?}");

        // No other buyer gets the ticket, and the repeated request gets no answer that may turn out wrong.
        assert_eq!(deployment.stats().await.waiting, 1, "{cut:?}");
        let held = deployment.find(1).await.unwrap().ticket_id;
        let again = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(again.is_err(), "{again:?}");

        line.mend();
        // The repeated request is granted its first ticket if that was stored, otherwise a new one.
        let granted = async {
            loop {
                let asked = deployment
                    .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
                    .await;
                match asked {
                    Ok((named, Granted::Now)) => return named,
                    Ok((_, Granted::Before { ticket_id, .. })) => return ticket_id,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let granted = tokio::time::timeout(PATIENCE, granted).await.unwrap();
        assert_eq!(granted == held, is_there, "{cut:?}");
        assert_eq!(deployment.stats().await.waiting, 1);

        // After a restart there is one row.
        drop(deployment);
        let store = open(settings).await;
        let find = messaging::Find::all(<ReservationRecord as messaging::Record>::TABLE, 10);
        let rows: Vec<ReservationRecord> = store.find(find).await.unwrap();
        let tickets: Vec<_> = rows.iter().map(|row| row.ticket_id).collect();
        assert_eq!(tickets, [granted]);
    }
}
