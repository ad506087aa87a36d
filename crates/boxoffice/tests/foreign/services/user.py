"""A user service that is not Boxoffice's. User 1 is good, 2 is not active, and 3 is a fraud; each has 1000 points."""

from bus import send, serve

INACTIVE, FRAUD = 2, 3
balances = {}
# What each saga has taken; 0 where it was given back, or was to be before it was taken.
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
    "theirs.user",
    {
        "user.check.active.request": check_active,
        "user.reserve.point.request": reserve,
        "user.check.fraud.request": check_fraud,
        "user.restore.point.request": restore,
    },
    command,
)
