//! Links: which operation takes a value of which response. Parameters only, because some generators reject links with a
//! body, though the specification allows them.

use utoipa::openapi::{OpenApi, RefOr, link::LinkBuilder};

use super::{operation_name, operation_of};

/// A response, an operation, and the field of the response that is the operation's only parameter.
const LINKS: &str = "
post /event 201 -> get /event/{id} id
post /event 201 -> get /ticketing/event/{eventId} id
post /user 201 -> get /user/{id} id
post /user 201 -> get /user/{id}/points id
post /user 201 -> post /user/{id}/points id
post /ticketing/reserve 200 -> delete /ticketing/reserve/{ticketId} ticketId
post /ticketing/process 202 -> get /ticketing/process/{ticketId} ticketId
get /ticketing/process/{ticketId} 200 -> get /payment/{paymentId} paymentId
get /ticketing/process/{ticketId} 200 -> get /saga/{sagaId} sagaId
post /payment/confirmed 200 -> get /payment/{paymentId} paymentId
post /payment/confirmed 202 -> get /payment/{paymentId} paymentId
get /payment/{paymentId} 200 -> get /ticket/{ticketId} ticketId
get /payment/{paymentId} 200 -> put /payment/{paymentId}/refund-account paymentId
get /ticket/{ticketId} 200 -> post /ticket/{ticketId}/cancel ticketId
post /ticket/{ticketId}/cancel 202 -> get /ticket/{ticketId}/cancel ticketId
post /payment/reconciliation 200 -> get /payment/reconciliation/{id} id
";

/// Adds each link whose operations are both in the document: a process may have the routes of some services only.
pub fn add(page: &mut OpenApi) {
    let paths = &mut page.paths.paths;
    for link in LINKS.lines().skip(1) {
        let words: Vec<&str> = link.split(' ').collect();
        let [method, path, status, _, to_method, to_path, field] = words[..] else {
            unreachable!("each link has seven words");
        };
        if operation_of(paths, to_method, to_path).is_none() {
            continue;
        }
        let name = operation_name(to_method, to_path);
        let parameter = to_path.split(['{', '}']).nth(1).unwrap_or(field);
        let link = LinkBuilder::new().operation_id(&name);
        let link = link.parameter(parameter, format!("$response.body#/{field}"));
        let from = operation_of(paths, method, path);
        let response = from.and_then(|from| from.responses.responses.get_mut(status));
        if let Some(RefOr::T(response)) = response {
            response.links.insert(name, RefOr::T(link.build()));
        }
    }
}
