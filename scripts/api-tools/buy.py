"""Buys a ticket by the client that was generated from the running server's own OpenAPI page: python buy.py URL."""

import sys
import time

import boxoffice_client as api

PATIENCE_SECS = 60
PRICE = 50_000
POINTS = 3_000


def eventually(read, wanted):
    """What `read` gives, once it is as wanted; a 404 is an answer that is still to come."""
    deadline = time.monotonic() + PATIENCE_SECS
    while True:
        try:
            answer = read()
        except api.exceptions.NotFoundException:
            answer = None
        if answer is not None and wanted(answer):
            return answer
        assert time.monotonic() < deadline, f"never as wanted: {answer}"
        time.sleep(0.05)


def main(url):
    client = api.ApiClient(api.Configuration(host=url))
    events, users = api.EventApi(client), api.UserApi(client)
    ticketing, payments = api.TicketingApi(client), api.PaymentApi(client)

    event = events.post_event(api.RegisterEvent.from_dict({"name": "Show", "ticketQuantity": 2, "price": PRICE}))
    user = users.post_user(api.RegisterUser.from_dict({"name": "Mina", "points": POINTS}))
    eventually(lambda: ticketing.get_ticketing_event_event_id(event.id), lambda it: it.available == 2)

    wanted = api.ReserveRequest(event_id=event.id, user_id=user.id)
    reserved = ticketing.post_ticketing_reserve(wanted, idempotency_key="mina-1")
    again = ticketing.post_ticketing_reserve(wanted, idempotency_key="mina-1")
    assert again.ticket_id == reserved.ticket_id, "one key is one reservation"
    ticketing.post_ticketing_process(
        api.ProcessRequest(
            ticket_id=reserved.ticket_id, event_id=event.id, user_id=user.id, total_amount=PRICE, point=POINTS
        )
    )
    purchase = eventually(
        lambda: ticketing.get_ticketing_process_ticket_id(reserved.ticket_id),
        lambda it: it.saga_state == "COMPLETED",
    )
    progress = purchase.to_dict()
    body = {
        "paymentId": progress["paymentId"],
        "pgPaymentId": "sandbox-card-1",
        "amount": progress["finalAmount"],
        "userId": user.id,
    }
    assert body["amount"] == PRICE - POINTS
    settled = payments.post_payment_confirmed(api.ConfirmBody.from_dict(body))
    assert settled.to_dict()["succeeded"] is True, settled
    ticket = eventually(
        lambda: ticketing.get_ticket_ticket_id(reserved.ticket_id), lambda it: it.status == "RESERVED"
    )
    assert ticket.user_id == user.id
    try:
        ticketing.post_ticketing_reserve(wanted)
        raise AssertionError("a user has one ticket of an event")
    except api.exceptions.ConflictException as refused:
        assert "ALREADY_PURCHASED" in refused.body, refused.body
    print(f"bought {ticket.ticket_id} by the generated client")


main(sys.argv[1])
