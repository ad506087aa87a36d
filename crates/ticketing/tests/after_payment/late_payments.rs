//! Payments that succeed after their reservation has ended.

use contract::{
    UserId,
    payment::{CancelRequest, DeleteResponse},
    ticketing::Release,
};
use messaging::Commit;

use crate::test_app::{EVENT, TestApp, cancelled, paid, payment_id, reserve_body};

#[tokio::test]
async fn a_payment_for_an_expired_reservation_gets_a_ticket_while_any_is_left() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire(ticket, 1).await;
    assert_eq!(app.stats().await.available, 1);
    assert_eq!(app.progress(ticket).await["failure"], "RESERVATION_EXPIRED");

    app.deliver(&paid(ticket, 1, 3)).await;

    app.check_issued(ticket).await;
    assert_eq!(app.check_consistency().await, 1);
    assert_eq!(app.published::<CancelRequest>(), []);
    let progress = app.progress(ticket).await;
    assert_eq!(progress["ticketStatus"], "RESERVED");
    assert_eq!(progress.get("failure"), None, "{progress}");
    app.restart().await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn a_ticket_is_kept_while_a_payment_attempt_that_began_in_time_has_no_outcome() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    // The payment is not reported as deleted: an attempt is at the gateway.
    app.expire_claims().await;
    for _ in 0..3 {
        app.clock.advance_millis(61_000);
        app.service.expire_due().await.unwrap();
        app.run_workers().await;
        for (user, code) in [(1, "ALREADY_RESERVED"), (2, "SOLD_OUT")] {
            let body = reserve_body(1, user);
            app.post_refused("/ticketing/reserve", body, 409, code)
                .await;
        }
        app.restart().await;
    }
    assert_eq!(app.published::<Release>(), []);

    app.deliver(&paid(ticket, 1, 3)).await;

    app.check_issued(ticket).await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn paging_after_the_last_ticket_misses_none_that_was_reserved_earlier_and_paid_later() {
    let mut app = TestApp::with_quantity(2).await;
    let early = app.purchase(1).await;
    app.clock.advance_millis(5_000);
    let late = app.buy(2).await;
    app.clock.advance_millis(5_000);
    app.deliver(&paid(early, 1, 3)).await;
    assert!(early < late, "a ticket has its id since it was reserved");
    // One user owns both.
    let ticket = app.ticket(late).await.unwrap();
    let mut commit = Commit::new();
    commit.put(&ticketing::model::Ticket {
        user_id: UserId(1),
        ..ticket
    });
    app.store.commit(commit).await.unwrap();

    let read = async |query: String| {
        let (status, page) = app.get(&format!("/ticket?userId=1{query}")).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap().clone();
        let ids = items
            .iter()
            .map(|it| it["ticketId"].as_str().unwrap().parse().unwrap());
        ids.collect::<Vec<contract::TicketId>>()
    };
    assert_eq!(read(String::new()).await, [late, early]);
    assert_eq!(read("&limit=1".to_owned()).await, [late]);
    assert_eq!(read(format!("&after={late}")).await, [early]);
    assert_eq!(read(format!("&after={early}")).await, []);
}

#[tokio::test]
async fn a_ticket_is_on_sale_again_as_soon_as_its_payment_is_closed() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire_claims().await;
    assert_eq!(app.stats().await.available, 0);

    // Its points are not restored yet.
    app.deliver(&DeleteResponse {
        saga_id: ticket.expire_saga(),
        succeed: true,
        payment_id: payment_id(ticket),
    })
    .await;

    assert_eq!(app.stats().await.available, 1);
    app.buy(2).await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn a_payment_for_an_expired_reservation_is_refunded_if_all_is_sold() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire(ticket, 1).await;
    let next = app.buy(2).await;

    app.deliver(&paid(ticket, 1, 3)).await;

    let asked: Vec<_> = app.published::<CancelRequest>();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].payment_id, asked[0].saga_id),
        (payment_id(ticket), None)
    );
    assert_eq!(app.ticket_status(ticket).await, None);
    app.check_issued(next).await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn a_payment_for_an_expired_reservation_is_refunded_if_its_user_has_reserved_again() {
    let mut app = TestApp::with_quantity(2).await;
    let ticket = app.purchase(1).await;
    app.expire(ticket, 1).await;
    let again = app.purchase(1).await;

    app.deliver(&paid(ticket, 1, 3)).await;

    assert_eq!(app.published::<CancelRequest>().len(), 1);
    let found = app.service.reservations().find(EVENT, UserId(1)).await;
    let held = found.unwrap().unwrap();
    assert_eq!(held.ticket_id, again, "the current reservation stays");
    assert_eq!(app.check_consistency().await, 0);
}

#[tokio::test]
async fn a_payment_for_a_reservation_that_its_buyer_released_is_refunded() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.service.release(ticket, None).await.unwrap();
    app.run_workers().await;

    app.deliver(&paid(ticket, 1, 3)).await;

    assert_eq!(app.published::<CancelRequest>().len(), 1);
    assert_eq!(app.ticket_status(ticket).await, None);
    assert_eq!(app.stats().await.available, 1);
    assert_eq!(app.check_consistency().await, 0);
}

#[tokio::test]
async fn a_late_release_of_a_compensated_purchase_does_not_release_its_ticket() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire(ticket, 1).await;
    app.deliver(&paid(ticket, 1, 3)).await;

    app.deliver(&Release {
        ticket_id: ticket,
        event_id: EVENT,
        user_id: UserId(1),
    })
    .await;

    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn a_claim_that_the_allocation_refuses_is_released_when_its_payment_is_cancelled() {
    let mut app = TestApp::with_quantity(2).await;
    let (first, second) = (app.purchase(1).await, app.purchase(2).await);
    // Both wait, and the quantity is lowered to one.
    app.event(1, 2).await;
    app.publish(&paid(first, 1, 3)).await;
    app.deliver(&paid(second, 2, 3)).await;
    assert_eq!(app.published::<CancelRequest>().len(), 1);

    app.deliver(&cancelled(second, 2, 4)).await;

    assert_eq!(app.check_consistency().await, 1);
    let refused = app.reserve(2).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "there is no ticket left",
        "the user may reserve again, but no ticket is left"
    );
}
