//! The payment service is another company's: it names its payments itself, counts their versions from 0, and knows no saga.

use contract::{
    PaymentId, TicketId, UserId,
    domain::{self, DomainMessage, PaymentStatus, Refund, TicketStatus},
    payment::{CancelRequest, CreateResponse, DeleteRequest, DeleteResponse},
    ticketing::{Expire, SagaTimeout},
};

use crate::house::{EVENT, House, cancelled, paid, payment_id};

/// What nobody could derive.
fn theirs() -> PaymentId {
    "1a2b3c4d-0000-4000-8000-000000000001".parse().unwrap()
}

fn another() -> PaymentId {
    "1a2b3c4d-0000-4000-8000-000000000002".parse().unwrap()
}

fn opened(ticket: TicketId, payment_id: PaymentId) -> CreateResponse {
    CreateResponse {
        saga_id: ticket.purchase_saga(),
        succeed: true,
        user_id: UserId(1),
        event_id: EVENT,
        payment_id: Some(payment_id),
    }
}

/// As their service tells of its payment.
fn told(ours: DomainMessage<domain::Payment>, version: i64) -> DomainMessage<domain::Payment> {
    let payload = domain::Payment {
        id: theirs(),
        saga_id: None,
        ..ours.payload
    };
    DomainMessage::new(payload, version, ours.time_stamp)
}

impl House {
    async fn purchase_at_theirs(&mut self) -> TicketId {
        let ticket = self.checked(1).await;
        self.hear(&opened(ticket, theirs())).await;
        ticket
    }

    fn deletions(&self) -> Vec<PaymentId> {
        let asked = self.published::<DeleteRequest>().into_iter();
        asked.map(|it| it.payment_id).collect()
    }
}

#[tokio::test]
async fn a_buyer_is_shown_the_payment_by_the_name_that_its_service_gave_it() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase_at_theirs().await;
    let shown = house.process(ticket).await;
    assert_eq!(shown["sagaState"], "COMPLETED");
    assert_eq!(shown["paymentId"], theirs().to_string());

    // It opened another for the same request: the buyer has the first.
    house.hear(&opened(ticket, another())).await;
    assert_eq!(
        house.process(ticket).await["paymentId"],
        theirs().to_string()
    );
}

#[tokio::test]
async fn a_service_that_names_no_payment_is_taken_to_use_the_derived_name() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.checked(1).await;
    let unnamed = CreateResponse {
        payment_id: None,
        ..opened(ticket, theirs())
    };
    house.hear(&unnamed).await;
    let shown = house.process(ticket).await;
    assert_eq!(shown["paymentId"], payment_id(ticket).to_string());
}

#[tokio::test]
async fn a_lapsed_purchase_closes_the_payment_by_its_own_name() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase_at_theirs().await;
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    house.work().await;
    assert_eq!(house.deletions(), [theirs()]);

    let saga_id = ticket.expire_saga();
    house
        .hear(&DeleteResponse {
            saga_id,
            succeed: true,
            payment_id: theirs(),
        })
        .await;
    house.restored(ticket, saga_id, 1).await;
    assert_eq!(house.stats().await.available, 1);
}

#[tokio::test]
async fn a_payment_whose_name_comes_late_is_closed_by_it_when_asked_again() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.checked(1).await;
    // The reservation goes while the payment is being opened: whether it is, nobody knows.
    let expire = Expire {
        ticket_id: ticket,
        event_id: EVENT,
        user_id: UserId(1),
    };
    house.hear(&expire).await;
    assert_eq!(house.deletions(), [payment_id(ticket)]);

    house.hear(&opened(ticket, theirs())).await;
    house.hear(&opened(ticket, another())).await;
    house
        .time_out(&SagaTimeout {
            saga_id: ticket.purchase_saga(),
            step: 3,
            compensating: true,
            attempt: 1,
        })
        .await;
    assert_eq!(house.deletions(), [payment_id(ticket), theirs()]);
}

#[tokio::test]
async fn money_that_is_told_of_at_version_0_and_without_a_saga_buys_a_ticket() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase_at_theirs().await;
    house.hear(&told(paid(ticket, 1, 1), 0)).await;
    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(
        house.process(ticket).await["paymentId"],
        theirs().to_string()
    );
    // Said again, it changes nothing.
    house.hear(&told(paid(ticket, 1, 1), 0)).await;
    assert_eq!(house.check_books().await, 1);

    let (status, _) = house.cancel(ticket).await;
    assert_eq!(status, 202);
    house.work().await;
    assert_eq!(house.published::<CancelRequest>()[0].payment_id, theirs());
    house.hear(&told(cancelled(ticket, 1, 1), 1)).await;
    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
}

#[tokio::test]
async fn a_refund_that_is_told_of_at_version_0_is_known() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase_at_theirs().await;
    house.hear(&told(cancelled(ticket, 1, 1), 0)).await;
    let shown = house.process(ticket).await;
    assert_eq!(shown["refund"], serde_json::json!(Refund::Done));
    assert_eq!(
        shown["paymentStatus"],
        serde_json::json!(PaymentStatus::Cancelled)
    );
    assert_eq!(shown["paymentId"], theirs().to_string());
}
