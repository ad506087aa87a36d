"""A foreign payment service: it chooses its payment ids itself and counts versions from 0."""

import uuid

from bus import now, send, serve

# Payments above this amount are refused.
AMOUNT_MAX = 1_000_000
payments = {}
by_saga = {}


def publish(payment, event_type):
    send(
        "domain.payment",
        {
            "eventId": str(uuid.uuid4()),
            "version": payment["version"],
            "aggregateId": payment["state"]["id"],
            "aggregateType": "payment",
            "eventType": event_type,
            "timeStamp": now(),
            "payload": payment["state"],
        },
        times=2,
    )


def become(payment, status, **more):
    payment["version"] += 1
    payment["state"].update(status=status, updatedAt=now(), **more)
    publish(payment, "update")


def create(request):
    saga = request["sagaId"]
    succeed = request["totalAmount"] <= AMOUNT_MAX and by_saga.get(saga) != "closed"
    if succeed and saga not in by_saga:
        payment_id = str(uuid.uuid4())
        state = {name: request[name] for name in ("eventId", "userId", "ticketId", "totalAmount")}
        state |= {"id": payment_id, "pointAmount": request["point"], "status": "CREATED"}
        state |= {"finalAmount": request["totalAmount"] - request["point"], "createdAt": now(), "updatedAt": now()}
        payments[payment_id] = {"version": 0, "state": state}
        by_saga[saga] = payment_id
        publish(payments[payment_id], "create")
    response = {"sagaId": saga, "succeed": succeed, "userId": request["userId"], "eventId": request["eventId"]}
    response |= {"paymentId": by_saga[saga]} if succeed else {}
    send("payment.create.response", response, times=2)


def delete(request):
    saga = request["sagaId"]
    payment_id = request["paymentId"] if request["paymentId"] in payments else by_saga.get(saga)
    payment = payments.get(payment_id)
    response = {"sagaId": saga, "paymentId": request["paymentId"]}
    if payment is None:
        by_saga[saga] = "closed"
    elif payment["state"]["status"] == "SUCCEEDED":
        response["succeed"] = False
    elif payment["state"]["status"] != "DELETED":
        become(payment, "DELETED")
    send("payment.delete.response", response, times=2)


def cancel(request):
    payment = payments[request["paymentId"]]
    if payment["state"]["status"] == "SUCCEEDED":
        become(payment, "CANCELLED")
    if "sagaId" in request:
        response = {"sagaId": request["sagaId"], "paymentId": request["paymentId"], "succeed": True}
        send("payment.cancel.response", response, times=2)


def command(name, payment_id):
    payment = payments[payment_id]
    if name == "pay" and payment["state"]["status"] == "CREATED":
        become(payment, "SUCCEEDED", pgPaymentId="card-" + payment_id)
    return payment["state"]


serve(
    "foreign.payment",
    {
        "payment.create.request": create,
        "payment.delete.request": delete,
        "payment.cancel.request": cancel,
    },
    command,
)
