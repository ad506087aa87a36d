//! What no check of the audit notices, and why. `mutations.rs` holds these lists to what is so.

/// Tables that say nothing of a sale, or only once more what is said elsewhere.
pub const APART: &[(&str, &str)] = &[
    (
        "consumer",
        "the place of a group in the log: one that is wrong repeats or skips messages, which the inbox and the sagas' timers bear",
    ),
    (
        "idempotency",
        "what a client was answered; nothing is decided by it but its repetition",
    ),
    (
        "inbox",
        "which messages were handled; a mark too many or too few has its effect in the tables that are checked",
    ),
    ("lease", "who leads in distributed operation, for seconds"),
    ("message", "what was said; removed once it is handled"),
    (
        "payment_gateway",
        "which gateway the payments belong to; the start compares it with the settings",
    ),
    (
        "payment_reconciliation",
        "a report of what was compared once, for people",
    ),
];

const TIMES: &str = "when it happened is said once";
const COUNTS: &str = "which write is the newest; only the next write compares it";
const NAMES: &str = "what an operator says of it; nothing else repeats it";
const WORDS: &str = "for people; nothing is decided by it";
const GATEWAY: &str =
    "the gateway's word; the reconciliation compares it with the gateway's own books";
const TIMER: &str = "one that says anything else changes nothing or becomes a dead letter; one for too late is clamped";
const NOT_ALWAYS: &str =
    "bounded or decided by what else there is; another value within that says the same";

/// Columns of which a change is noticed in no row, in whichever table (`*`) or in one. Rows as a whole are
/// `(deleted)` and `(copied)`.
pub const NEVER: &[(&str, &str, &str)] = &[
    ("*", "created_at", TIMES),
    ("*", "updated_at", TIMES),
    ("*", "version", COUNTS),
    ("app_user", "flagged", NAMES),
    ("app_user", "name", NAMES),
    ("app_user", "status", NAMES),
    ("event", "name", NAMES),
    ("payment", "deposit_account", GATEWAY),
    ("payment", "deposit_bank", GATEWAY),
    ("payment", "deposit_due", GATEWAY),
    ("payment_history", "note", WORDS),
    ("payment_stray", "(copied)", GATEWAY),
    ("payment_stray", "(deleted)", GATEWAY),
    ("payment_stray", "amount", GATEWAY),
    ("payment_stray", "found_at", TIMES),
    ("payment_stray", "pg_payment_id", GATEWAY),
    ("payment_stray", "reason", WORDS),
    ("payment_stray", "refund_requested_at", TIMES),
    ("payment_webhook", "(copied)", GATEWAY),
    ("payment_webhook", "(deleted)", GATEWAY),
    ("payment_webhook", "pg_payment_id", GATEWAY),
    ("payment_webhook", "received_at", TIMES),
    ("payment_webhook", "told_status", GATEWAY),
    ("payment_webhook", "transmission_id", GATEWAY),
    ("point_ledger", "at", TIMES),
    ("purchase", "requested_at", TIMES),
    ("saga", "traceparent", WORDS),
    ("timer", "due_at", TIMER),
    ("timer", "key", TIMER),
    ("timer", "message_id", TIMER),
    ("timer", "payload", TIMER),
    ("timer", "reissue", TIMER),
    ("timer", "topic", TIMER),
    ("timer", "trace", WORDS),
];

/// Columns that are noticed in every row, though those of their name are not.
const ALWAYS: &[(&str, &str)] = &[
    ("event", "version"),
    ("payment", "created_at"),
    ("payment", "updated_at"),
    ("payment", "version"),
];

/// Columns of which a change is noticed in some rows and not in others.
pub const NOT_IN_ALL: &[(&str, &str, &str)] = &[
    (
        "allocation",
        "lowered_to",
        "lowered to what there is anyway",
    ),
    (
        "app_user",
        "(copied)",
        "a user without points who never bought",
    ),
    (
        "app_user",
        "(deleted)",
        "a user without points who never bought",
    ),
    ("app_user", "profile_version", NOT_ALWAYS),
    (
        "app_user",
        "version",
        "not below that of the last ledger entry and of the last change by an operator",
    ),
    (
        "dead_letter",
        "(deleted)",
        "one that waits for a person is known to nobody else",
    ),
    (
        "dead_letter",
        "reissues",
        "how often a person has sent it again",
    ),
    ("dead_letter", "state", "whether a person has closed it"),
    ("payment", "decline_code", GATEWAY),
    ("payment", "refund_code", GATEWAY),
    ("payment", "refund_number", NOT_ALWAYS),
    (
        "payment",
        "refund_reason",
        "while its saga is still telling of it",
    ),
    (
        "payment",
        "refund_requested_at",
        "of a refund that is not asked for any more, or not for long",
    ),
    (
        "payment",
        "refund_saga",
        "that a saga has asked, and not ticketing",
    ),
    (
        "payment_history",
        "at",
        "of an entry between the first and the last that begins no attempt",
    ),
    (
        "payment_history",
        "pg_payment_id",
        "of an entry that is not the last",
    ),
    ("payment_stray", "refund", GATEWAY),
    ("payment_stray", "refund_number", NOT_ALWAYS),
    ("payment_webhook", "kind", GATEWAY),
    ("payment_webhook", "note", WORDS),
    ("payment_webhook", "payment_id", GATEWAY),
    (
        "payment_webhook",
        "state",
        "handled or ignored: both are over",
    ),
    ("point_hold", "payment_version", NOT_ALWAYS),
    (
        "point_ledger",
        "(deleted)",
        "that points were used before they came back: it sums to the same",
    ),
    ("point_ledger", "reason", WORDS),
    (
        "point_ledger",
        "saga_id",
        "of points that were used before they came back",
    ),
    (
        "purchase",
        "released_at",
        "whether what came to nothing was given back or has expired",
    ),
    (
        "purchase_refund",
        "(deleted)",
        "of a refund that was refused, or whose saga is still telling of it",
    ),
    (
        "purchase_refund",
        "payment_status",
        "while its saga is still telling of it",
    ),
    (
        "purchase_refund",
        "payment_version",
        "while its saga is still telling of it",
    ),
    (
        "purchase_refund",
        "reason",
        "while its saga is still telling of it",
    ),
    (
        "purchase_refund",
        "refund",
        "while its saga is still telling of it",
    ),
    (
        "reservation",
        "(deleted)",
        "one whose purchase was not begun",
    ),
    (
        "reservation",
        "agreed_price",
        "of one whose purchase was not begun, or that an older program kept",
    ),
    (
        "reservation",
        "event_id",
        "of one whose purchase was not begun",
    ),
    (
        "reservation",
        "expires_at",
        "of one whose purchase was not begun, or is over",
    ),
    (
        "reservation",
        "lapses_at",
        "not before the deadline; the setting of the grace period may have changed",
    ),
    (
        "reservation",
        "ticket_id",
        "of one whose purchase was not begun",
    ),
    (
        "reservation",
        "user_id",
        "of one whose purchase was not begun",
    ),
    (
        "saga",
        "(deleted)",
        "one that has changed nothing: what it wanted was refused",
    ),
    ("saga", "failure", WORDS),
    (
        "saga",
        "steps",
        "attempts, retries and refusals of steps that are over",
    ),
    ("ticket", "payment_version", NOT_ALWAYS),
];
/// By its own line, or where it has none by that of all tables.
pub fn is_listed(list: &[(&str, &str, &str)], table: &str, column: &str) -> bool {
    let has_own =
        |list: &[(&str, &str, &str)]| list.iter().any(|it| it.0 == table && it.1 == column);
    let is_of_all = list.iter().any(|it| it.0 == "*" && it.1 == column);
    has_own(list)
        || is_of_all
            && !has_own(NEVER)
            && !has_own(NOT_IN_ALL)
            && !ALWAYS.contains(&(table, column))
}
