//! Changes that no check of the audit detects, with reasons. The test in `mutations.rs` fails if a list is wrong.

/// Tables without information about the sale, or only with information that other tables have too.
pub const IGNORED_TABLES: &[(&str, &str)] = &[
    (
        "consumer",
        "the offset of a group in the log: a wrong one repeats or skips messages, which inbox and saga timers tolerate",
    ),
    (
        "idempotency",
        "saved answers; only their repetition uses them",
    ),
    (
        "inbox",
        "which messages were handled; a wrong mark has effects in tables that are checked",
    ),
    ("lease", "who leads in distributed operation, for seconds"),
    (
        "message",
        "published messages; deleted once they are handled",
    ),
    (
        "payment_gateway",
        "which gateway the payments belong to; the start compares it with the settings",
    ),
    (
        "payment_reconciliation",
        "reports of past comparisons, for people",
    ),
];

const TIMES: &str = "a time that is stored only once";
const COUNTS: &str = "the record's version; only the next write compares it";
const NAMES: &str = "set by an operator and stored only once";
const WORDS: &str = "for people; no decision uses it";
const GATEWAY: &str = "from the gateway; the reconciliation compares it with the gateway's books";
const TIMER: &str =
    "a wrong timer changes nothing or becomes a dead letter; a time too late is clamped";
const NOT_ALWAYS: &str =
    "only bounded by other records; another value within the bounds is consistent";

/// Columns whose changes are detected in no row, of all tables (`*`) or of one. Whole rows are `(deleted)` and `(copied)`.
pub const UNDETECTED: &[(&str, &str, &str)] = &[
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

/// Columns whose changes are detected in every row, unlike those of the same name in other tables.
const DETECTED: &[(&str, &str)] = &[
    ("event", "version"),
    ("payment", "created_at"),
    ("payment", "updated_at"),
    ("payment", "version"),
];

/// Columns whose changes are detected in some rows only.
pub const PARTLY_DETECTED: &[(&str, &str, &str)] = &[
    (
        "allocation",
        "lowered_to",
        "if the quantity was lowered to its own value",
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
        "a parked one has no other trace",
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
        "while its saga is still publishing it",
    ),
    (
        "payment",
        "refund_requested_at",
        "of a refund that is completed or was just requested",
    ),
    (
        "payment",
        "refund_saga",
        "whether a saga or ticketing requested it",
    ),
    (
        "payment_history",
        "(deleted)",
        "of a payment that was deleted before it was created: an earlier program wrote none",
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
        "handled or ignored: both are final",
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
        "whether the compensated purchase was released or expired",
    ),
    (
        "purchase_refund",
        "(deleted)",
        "of a refund that was refused, or whose saga is still publishing it",
    ),
    (
        "purchase_refund",
        "payment_status",
        "while its saga is still publishing it",
    ),
    (
        "purchase_refund",
        "payment_version",
        "while its saga is still publishing it",
    ),
    (
        "purchase_refund",
        "reason",
        "while its saga is still publishing it",
    ),
    (
        "purchase_refund",
        "refund",
        "while its saga is still publishing it",
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
        "one whose first step was refused, without an effect",
    ),
    ("saga", "failure", WORDS),
    (
        "saga",
        "steps",
        "attempts, retries and refusals of steps that are over",
    ),
    ("ticket", "payment_version", NOT_ALWAYS),
];

/// Whether the list has the column, by its own line or else by the line of all tables.
pub fn is_listed(list: &[(&str, &str, &str)], table: &str, column: &str) -> bool {
    let has_own =
        |list: &[(&str, &str, &str)]| list.iter().any(|it| it.0 == table && it.1 == column);
    let is_of_all = list.iter().any(|it| it.0 == "*" && it.1 == column);
    has_own(list)
        || is_of_all
            && !has_own(UNDETECTED)
            && !has_own(PARTLY_DETECTED)
            && !DETECTED.contains(&(table, column))
}
