//! Refusals that no service makes, and the list of all codes: `/docs/problems`, where every problem's `type` points.

use axum::{
    http::{Method, StatusCode, Uri},
    response::Html,
};
use web::Problem;

/// Every code with its status and meaning. Codes are stable: programs decide by them.
pub const CODES: &[(u16, &str, &str)] = &[
    (
        400,
        "INVALID_REQUEST",
        "A field or parameter is wrong; it is named in `field`. Nothing was changed.",
    ),
    (
        400,
        "AMOUNT_MISMATCH",
        "The amount is not what is to be paid.",
    ),
    (400, "PRICE_MISMATCH", "The total is not the event's price."),
    (
        400,
        "TICKET_MISMATCH",
        "The ticket is another event's, or another user's.",
    ),
    (
        404,
        "DEAD_LETTER_NOT_FOUND",
        "There is no dead letter of this id.",
    ),
    (
        404,
        "CANCELLATION_NOT_FOUND",
        "Nobody has asked to give this ticket back.",
    ),
    (404, "EVENT_NOT_FOUND", "There is no event of this id."),
    (404, "NOT_FOUND", "There is no such address."),
    (404, "PAYMENT_NOT_FOUND", "There is no payment of this id."),
    (
        404,
        "PROCESS_NOT_FOUND",
        "No purchase of this ticket was begun.",
    ),
    (
        404,
        "RESERVATION_NOT_FOUND",
        "There is no such reservation; it may have lapsed.",
    ),
    (404, "SAGA_NOT_FOUND", "There is no saga of this id."),
    (404, "TICKET_NOT_FOUND", "No ticket of this id was issued."),
    (404, "USER_NOT_FOUND", "There is no user of this id."),
    (
        405,
        "METHOD_NOT_ALLOWED",
        "This address does not take this method; `Allow` names those that it takes.",
    ),
    (409, "ALREADY_CONFIRMED", "The payment is settled already."),
    (
        409,
        "ALREADY_PROCESSING",
        "The purchase of this ticket was begun already; `GET /ticketing/process/{ticketId}` shows how far it is.",
    ),
    (
        409,
        "ALREADY_PURCHASED",
        "The user has bought a ticket of this event.",
    ),
    (
        409,
        "ALREADY_RESERVED",
        "The user holds a reservation of this event.",
    ),
    (
        409,
        "CANCELLATION_IN_PROGRESS",
        "The ticket is being given back already; follow that under GET /ticket/{ticketId}/cancel.",
    ),
    (
        409,
        "DEAD_LETTER_CLOSED",
        "The dead letter is resolved or discarded.",
    ),
    (
        409,
        "DEAD_LETTER_UNPUBLISHABLE",
        "The store refuses the dead letter's message; the detail says why.",
    ),
    (
        409,
        "DEADLINE_PASSED",
        "The reservation's deadline is over; nothing was charged.",
    ),
    (
        409,
        "IDEMPOTENCY_KEY_IN_FLIGHT",
        "The first request with this key is still under way.",
    ),
    (409, "SALE_NOT_OPEN", "The event is not on sale now."),
    (
        409,
        "SOLD_OUT",
        "No ticket is available now; one may be again.",
    ),
    (
        409,
        "TICKET_CANCELLED",
        "The ticket was given back before, or is not valid any more.",
    ),
    (
        409,
        "VERSION_CONFLICT",
        "It was changed by another request first: read it again, and decide again.",
    ),
    (
        403,
        "CROSS_ORIGIN_REQUEST",
        "A web page of another site tried to change something through its visitor's browser.",
    ),
    (413, "BODY_TOO_LARGE", "The body is over 64 KiB."),
    (
        415,
        "UNSUPPORTED_ENCODING",
        "The body has a Content-Encoding; it is to be sent as it is.",
    ),
    (
        421,
        "UNKNOWN_HOST",
        "The request's `Host` is no name of this server; the setting `http.hosts` lists them.",
    ),
    (
        422,
        "IDEMPOTENCY_KEY_REUSED",
        "This key was used with another body.",
    ),
    (500, "INTERNAL", "A fault of ours; it is logged."),
    (
        503,
        "NOT_READY",
        "The store has failed, or a worker has ended.",
    ),
    (
        503,
        "OUTCOME_UNKNOWN",
        "The store went away in the middle of the commit: whether it was done is not known yet. Send the request again \
         with the same `Idempotency-Key` after `Retry-After`; without a key, look first.",
    ),
    (
        503,
        "OVERLOADED",
        "Too many requests at once; nothing was done. Try again after `Retry-After`.",
    ),
    (
        503,
        "RESERVATIONS_REBUILDING",
        "The reservations of this event are being rebuilt from the store. Try again after `Retry-After`.",
    ),
    (
        503,
        "UNAVAILABLE",
        "The store, or what decides reservations, cannot answer now; try again.",
    ),
    (
        504,
        "REQUEST_TIMEOUT",
        "The answer took too long; send the request again with the same `Idempotency-Key`.",
    ),
    (
        403,
        "PAYMENT_OWNER_MISMATCH",
        "The payment is another user's.",
    ),
    (
        403,
        "TICKET_OWNER_MISMATCH",
        "The ticket is another user's.",
    ),
    (
        409,
        "CONFIRMATION_IN_PROGRESS",
        "The payment is being confirmed by another request; its outcome will be there soon.",
    ),
    (
        404,
        "STRAY_NOT_FOUND",
        "No charge of this name was found beside its payment.",
    ),
    (
        409,
        "PAYMENT_NOT_CONFIRMING",
        "No attempt of the payment is at the gateway, or not for long enough: there is nothing to give up.",
    ),
    (
        409,
        "REFUND_NOT_PARKED",
        "The refund goes back by itself, has gone, or was never wanted: there is nothing for a person to do.",
    ),
    (
        404,
        "RECONCILIATION_NOT_FOUND",
        "No report of this id is kept.",
    ),
    (
        409,
        "RECONCILIATION_RUNNING",
        "One reconciliation runs at a time: look at its report when it is done, or ask again.",
    ),
    (
        503,
        "GATEWAY_UNAVAILABLE",
        "The payment gateway did not answer as it should; nothing was concluded. Try again later.",
    ),
    (
        409,
        "PAYMENT_CLOSED",
        "The payment can no longer be paid: its purchase was taken back, or its money went back. `GET /payment/{paymentId}` shows the refund.",
    ),
    (
        409,
        "SAGA_NOT_PARKED",
        "The saga moves by itself, or has ended; there is nothing to resume.",
    ),
    (
        409,
        "USER_EXISTS",
        "A user of this id is registered already.",
    ),
];

/// 404 for an address that no route has.
pub async fn no_such_route(uri: Uri) -> Problem {
    let detail = format_args!("there is no {}", uri.path());
    Problem::not_found("NOT_FOUND", detail)
}

/// 405 for a route that has other methods.
pub async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

/// What each problem means; a problem's `type` points here.
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
