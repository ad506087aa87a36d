//! The 404 and 405 of unknown routes, and the list of all problem codes at `/docs/problems`, which each problem's `type`
//! links to. Pure.

use axum::{
    http::{Method, StatusCode, Uri},
    response::Html,
};
use web::Problem;

/// Each code with its status and meaning. Codes are stable: programs decide by them.
pub const CODES: &[(u16, &str, &str)] = &[
    (
        400,
        "INVALID_REQUEST",
        "A field or parameter is invalid; `field` names it. Nothing was changed.",
    ),
    (
        400,
        "AMOUNT_MISMATCH",
        "The amount differs from the amount to pay.",
    ),
    (
        400,
        "PRICE_MISMATCH",
        "The total differs from the event's price.",
    ),
    (
        400,
        "TICKET_MISMATCH",
        "The ticket belongs to another event or another user.",
    ),
    (404, "DEAD_LETTER_NOT_FOUND", "No dead letter has this id."),
    (
        404,
        "CANCELLATION_NOT_FOUND",
        "No cancellation of this ticket was requested.",
    ),
    (404, "EVENT_NOT_FOUND", "No event has this id."),
    (404, "NOT_FOUND", "No route has this path."),
    (404, "PAYMENT_NOT_FOUND", "No payment has this id."),
    (
        404,
        "PROCESS_NOT_FOUND",
        "No purchase of this ticket was started.",
    ),
    (
        404,
        "RESERVATION_NOT_FOUND",
        "No reservation has this id; it may have expired.",
    ),
    (404, "SAGA_NOT_FOUND", "No saga has this id."),
    (404, "TICKET_NOT_FOUND", "No ticket of this id was issued."),
    (404, "USER_NOT_FOUND", "No user has this id."),
    (
        405,
        "METHOD_NOT_ALLOWED",
        "The route does not accept this method; `Allow` lists the methods that it accepts.",
    ),
    (
        409,
        "ALREADY_CONFIRMED",
        "The payment already has an outcome.",
    ),
    (
        409,
        "ALREADY_PROCESSING",
        "The purchase of this ticket was already started; `GET /ticketing/process/{ticketId}` shows its state.",
    ),
    (
        409,
        "ALREADY_PURCHASED",
        "The user has already bought a ticket of this event.",
    ),
    (
        409,
        "ALREADY_RESERVED",
        "The user already holds a reservation of this event.",
    ),
    (
        409,
        "CANCELLATION_IN_PROGRESS",
        "The ticket is already being cancelled; `GET /ticket/{ticketId}/cancel` shows the state.",
    ),
    (
        409,
        "DEAD_LETTER_CLOSED",
        "The dead letter is resolved or discarded.",
    ),
    (
        409,
        "DEAD_LETTER_UNPUBLISHABLE",
        "The store rejects the dead letter's message; `detail` says why.",
    ),
    (
        409,
        "DEADLINE_PASSED",
        "The reservation's deadline has passed; nothing was charged.",
    ),
    (
        409,
        "IDEMPOTENCY_KEY_IN_FLIGHT",
        "The first request with this key is still in progress.",
    ),
    (409, "SALE_NOT_OPEN", "The event is not on sale now."),
    (
        409,
        "SOLD_OUT",
        "No ticket is available now; one may become available again.",
    ),
    (
        409,
        "TICKET_CANCELLED",
        "The ticket is already cancelled, or no longer valid.",
    ),
    (
        409,
        "VERSION_CONFLICT",
        "Another request changed it first: read it again, and decide again.",
    ),
    (
        403,
        "CROSS_ORIGIN_REQUEST",
        "The request's `Origin` is another site, which may not change anything here.",
    ),
    (413, "BODY_TOO_LARGE", "The body is over 64 KiB."),
    (
        415,
        "UNSUPPORTED_ENCODING",
        "The body has a Content-Encoding; send it uncompressed.",
    ),
    (
        421,
        "UNKNOWN_HOST",
        "The request's `Host` is not a name of this server; the setting `http.hosts` lists its names.",
    ),
    (
        422,
        "IDEMPOTENCY_KEY_REUSED",
        "This key was used with another body.",
    ),
    (500, "INTERNAL", "The server failed; the failure is logged."),
    (
        503,
        "NOT_READY",
        "The store has failed, or a worker has ended.",
    ),
    (
        503,
        "OUTCOME_UNKNOWN",
        "The connection to the store broke during the commit, so the outcome is not known yet. Send the request again with \
         the same `Idempotency-Key` after `Retry-After`; without a key, read the state first.",
    ),
    (
        503,
        "OVERLOADED",
        "Too many requests are in flight; nothing was done. Try again after `Retry-After`.",
    ),
    (
        503,
        "RESERVATIONS_REBUILDING",
        "The reservations of this event are being rebuilt from the store. Try again after `Retry-After`.",
    ),
    (
        503,
        "UNAVAILABLE",
        "The store or Redis does not answer now; try again after `Retry-After`.",
    ),
    (
        504,
        "REQUEST_TIMEOUT",
        "The request timed out and its outcome is unknown; send it again with the same `Idempotency-Key`.",
    ),
    (
        403,
        "PAYMENT_OWNER_MISMATCH",
        "The payment belongs to another user.",
    ),
    (
        403,
        "TICKET_OWNER_MISMATCH",
        "The ticket belongs to another user.",
    ),
    (
        409,
        "CONFIRMATION_IN_PROGRESS",
        "Another request is confirming the payment; its outcome follows soon.",
    ),
    (404, "STRAY_NOT_FOUND", "No orphan charge has this id."),
    (
        409,
        "PAYMENT_NOT_CONFIRMING",
        "The payment has no attempt at the gateway that is old enough to be given up.",
    ),
    (
        409,
        "REFUND_NOT_PARKED",
        "The refund is in progress, done, or was never requested: no person is needed.",
    ),
    (
        404,
        "RECONCILIATION_NOT_FOUND",
        "No stored report has this id.",
    ),
    (
        409,
        "RECONCILIATION_RUNNING",
        "Another reconciliation is running: read its report when it is done, or try again.",
    ),
    (
        503,
        "GATEWAY_UNAVAILABLE",
        "The payment gateway did not answer, or answered unexpectedly; nothing was changed. Try again later.",
    ),
    (
        409,
        "PAYMENT_CLOSED",
        "The payment can no longer be paid: its purchase was compensated, or it was refunded. `GET /payment/{paymentId}` shows the refund.",
    ),
    (
        409,
        "SAGA_NOT_PARKED",
        "The saga is not parked: it is in progress, or has ended.",
    ),
    (409, "USER_EXISTS", "A user with this id already exists."),
];

/// 404 for a path that no route has.
pub async fn no_such_route(uri: Uri) -> Problem {
    let detail = format_args!("no route has the path {}", uri.path());
    Problem::not_found("NOT_FOUND", detail)
}

/// 405 for a method that the route does not accept.
pub async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not accept {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

/// The meaning of each problem code; a problem's `type` links here.
#[utoipa::path(get, path = "/docs/problems", tag = "operations",
    responses((status = 200, description = "every code", body = String, content_type = "text/html")))]
pub async fn page() -> Html<String> {
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Boxoffice: problems</title>\
         <style>body{font:16px/1.5 system-ui;max-width:48rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
         dt{font-weight:600;margin-top:1rem}:target{text-decoration:underline}</style><h1>Problems</h1><dl>",
    );
    for (status, code, meaning) in CODES {
        let anchor = code.to_lowercase().replace('_', "-");
        html.push_str(&format!(
            "<dt id={anchor}><code>{code}</code> ({status})<dd>{meaning}"
        ));
    }
    html.push_str("</dl></html>");
    Html(html)
}
