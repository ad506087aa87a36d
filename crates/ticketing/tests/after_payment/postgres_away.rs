//! PostgreSQL becomes unavailable during the commit of a buyer's request, for longer than the request waits.

use messaging::Postgres;

use crate::{
    cuttable_schema::{CuttableSchema, PATIENCE, open},
    idempotency_keys::ticket,
    line::Cut,
    test_app::{TestApp, tables},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_reserve_with_an_unknown_outcome_is_answered_later_with_a_ticket_that_can_be_bought()
 {
    for cut in [Cut::BehindCommit, Cut::BeforeCommit] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        Postgres::migrate(settings, &tables()).await.unwrap();
        let mut app = TestApp::over(open(settings, &tables()).await, 1).await;

        line.cut_for_long(cut);
        let (status, problem) = app.reserve_by_key(1, "one").await;
        assert_eq!((status, &problem["code"]), (503, &"OUTCOME_UNKNOWN".into()));

        line.mend();
        let answered = async {
            loop {
                let (status, answer) = app.reserve_by_key(1, "one").await;
                if status == 200 {
                    return ticket(&answer);
                }
                assert_eq!(status, 503, "{answer}");
                // As long as `Retry-After` says.
                app.clock.advance_millis(5_000);
                tokio::task::yield_now().await;
            }
        };
        let ticket_id = tokio::time::timeout(PATIENCE, answered).await.unwrap();

        // The answer is that of a reservation that no other buyer gets, and whose purchase starts.
        let (status, refusal) = app.reserve_by_key(2, "two").await;
        assert_eq!((status, &refusal["code"]), (409, &"SOLD_OUT".into()));
        app.start_purchase(ticket_id, 1).await;
        assert_eq!(app.progress(ticket_id).await["sagaState"], "STARTED");
        assert_eq!(app.check_consistency().await, 0);
    }
}
