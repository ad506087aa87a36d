"""A foreign user service. User 1 may buy, 2 is inactive, 3 is fraudulent; each has 1000 points."""

from bus import send, serve

INACTIVE, FRAUD = 2, 3
balances = {}
# Points reserved by each saga; 0 if they were restored, also if before they were reserved.
held = {}


def balance(user):
    return balances.setdefault(user, 1000)


def answer(topic, value):
    send(topic, value, times=2)


def check_active(request):
    saga, user = request["sagaId"], request["userId"]
    answer("user.check.active.response", {"sagaId": saga, "userId": user, "isActive": user != INACTIVE})


def check_fraud(request):
    saga, user = request["sagaId"], request["userId"]
    answer("user.check.fraud.response", {"sagaId": saga, "userId": user, "isFraudulent": user == FRAUD})


def reserve(request):
    saga, user, point = request["sagaId"], request["userId"], request["point"]
    if saga not in held and balance(user) >= point:
        balances[user] -= point
        held[saga] = point
    reserved = held.get(saga) == point
    answer("user.reserve.point.response", {"sagaId": saga, "userId": user, "point": point, "reserved": reserved})


def restore(request):
    saga, user = request["sagaId"], request["userId"]
    holder = request.get("heldBy") or saga
    point = held.get(holder, 0)
    balances[user] = balance(user) + point
    held[holder] = 0
    answer("user.restore.point.response", {"sagaId": saga, "userId": user, "point": point, "succeed": True})


def command(name, user):
    return {"balance": balance(int(user))}


serve(
    "foreign.user",
    {
        "user.check.active.request": check_active,
        "user.reserve.point.request": reserve,
        "user.check.fraud.request": check_fraud,
        "user.restore.point.request": restore,
    },
    command,
)
