//! The door for the gateway.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use web::{Body, Problem, ProblemDetails};

use crate::{
    Service,
    gateway::protocol::WEBHOOK_ID_HEADER,
    webhook::{Error, HearInput},
};

/// Take a webhook of the gateway
///
/// `PAYMENT_STATUS_CHANGED` or `DEPOSIT_CALLBACK`. It is durable when it is answered, and handled afterwards: what it
/// says is a hint, and the gateway is asked what is so. Sent again, it changes nothing; of another kind, or about a
/// payment that is not ours, it is passed over.
#[utoipa::path(
    post, path = "/payment/webhook/toss", tag = "payment", request_body = Object,
    params(("tosspayments-webhook-transmission-id" = Option<String>, Header, description = "Names the webhook, however often it is sent")),
    responses(
        (status = 200, description = "It is kept, or needs not be"),
        (status = 400, description = "INVALID_REQUEST", body = ProblemDetails),
        (status = 413, description = "BODY_TOO_LARGE", body = ProblemDetails),
        (status = 503, description = "OVERLOADED, UNAVAILABLE: it must be sent again", body = ProblemDetails),
    )
)]
pub(super) async fn hear(
    State(service): State<Service>,
    headers: HeaderMap,
    Body(body): Body<Value>,
) -> Result<StatusCode, Problem> {
    let transmission_id = headers
        .get(WEBHOOK_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let input = HearInput {
        transmission_id,
        body,
    };
    service.hear(input).await?;
    Ok(StatusCode::OK)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Field { name } => Self::invalid(name, error),
            Error::Store(error) => error.into(),
        }
    }
}
