//! Links: which operation takes a value of which response. Parameters only, because some generators reject links with a
//! body, though the specification allows them.

use utoipa::openapi::{OpenApi, RefOr, link::LinkBuilder};

use super::{operation_name, operation_of};

/// From an operation's response, to an operation, and which parameter takes which value of the response.
type Link = (
    (&'static str, &'static str, &'static str),
    (&'static str, &'static str),
    (&'static str, &'static str),
);

const LINKS: &[Link] = &[
    (
        ("post", "/event", "201"),
        ("get", "/event/{id}"),
        ("id", "$response.body#/id"),
    ),
    (
        ("post", "/event", "201"),
        ("get", "/ticketing/event/{eventId}"),
        ("eventId", "$response.body#/id"),
    ),
    (
        ("post", "/user", "201"),
        ("get", "/user/{id}"),
        ("id", "$response.body#/id"),
    ),
    (
        ("post", "/user", "201"),
        ("get", "/user/{id}/points"),
        ("id", "$response.body#/id"),
    ),
    (
        ("post", "/user", "201"),
        ("post", "/user/{id}/points"),
        ("id", "$response.body#/id"),
    ),
    (
        ("post", "/ticketing/reserve", "200"),
        ("delete", "/ticketing/reserve/{ticketId}"),
        ("ticketId", "$response.body#/ticketId"),
    ),
    (
        ("post", "/ticketing/process", "202"),
        ("get", "/ticketing/process/{ticketId}"),
        ("ticketId", "$response.body#/ticketId"),
    ),
    (
        ("get", "/ticketing/process/{ticketId}", "200"),
        ("get", "/payment/{paymentId}"),
        ("paymentId", "$response.body#/paymentId"),
    ),
    (
        ("get", "/ticketing/process/{ticketId}", "200"),
        ("get", "/saga/{sagaId}"),
        ("sagaId", "$response.body#/sagaId"),
    ),
    (
        ("post", "/payment/confirmed", "200"),
        ("get", "/payment/{paymentId}"),
        ("paymentId", "$response.body#/paymentId"),
    ),
    (
        ("post", "/payment/confirmed", "202"),
        ("get", "/payment/{paymentId}"),
        ("paymentId", "$response.body#/paymentId"),
    ),
    (
        ("get", "/payment/{paymentId}", "200"),
        ("get", "/ticket/{ticketId}"),
        ("ticketId", "$response.body#/ticketId"),
    ),
    (
        ("get", "/payment/{paymentId}", "200"),
        ("put", "/payment/{paymentId}/refund-account"),
        ("paymentId", "$response.body#/paymentId"),
    ),
    (
        ("get", "/ticket/{ticketId}", "200"),
        ("post", "/ticket/{ticketId}/cancel"),
        ("ticketId", "$response.body#/ticketId"),
    ),
    (
        ("post", "/ticket/{ticketId}/cancel", "202"),
        ("get", "/ticket/{ticketId}/cancel"),
        ("ticketId", "$response.body#/ticketId"),
    ),
    (
        ("post", "/payment/reconciliation", "200"),
        ("get", "/payment/reconciliation/{id}"),
        ("id", "$response.body#/id"),
    ),
];

/// Adds each link whose operations are both in the document: a process may have the routes of some services only.
pub fn add(page: &mut OpenApi) {
    let paths = &mut page.paths.paths;
    for ((method, path, status), (to_method, to_path), (parameter, value)) in LINKS {
        if operation_of(paths, to_method, to_path).is_none() {
            continue;
        }
        let name = operation_name(to_method, to_path);
        let link = LinkBuilder::new()
            .operation_id(&name)
            .parameter(*parameter, *value);
        let from = operation_of(paths, method, path);
        let response = from.and_then(|from| from.responses.responses.get_mut(*status));
        if let Some(RefOr::T(response)) = response {
            response.links.insert(name, RefOr::T(link.build()));
        }
    }
}
