//! The entry point for the gateway's webhooks.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use toss::protocol::{PAYMENT_STATUS_CHANGED, WEBHOOK_ID_HEADER};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};
use web::{Body, Problem, ProblemDetails};

use crate::{
    Service,
    webhook::{Error, ReceiveWebhookInput},
};

/// Receive a webhook of the gateway
///
/// `PAYMENT_STATUS_CHANGED` or `DEPOSIT_CALLBACK`. It is stored before it is answered, and handled afterwards by looking
/// the payment up at the gateway. A repeated delivery changes nothing; other kinds and other payments are ignored.
#[utoipa::path(
    post, path = "/payment/webhook/toss", tag = "payment", request_body = Webhook,
    params(("tosspayments-webhook-transmission-id" = Option<String>, Header, description = "Names the webhook, however often it is sent")),
    responses(
        (status = 200, description = "It is kept, or needs not be"),
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
    let input = ReceiveWebhookInput {
        transmission_id,
        body,
    };
    service.receive_webhook(input).await?;
    Ok(StatusCode::OK)
}

/// The schema of a webhook, for the OpenAPI page only; [`crate::webhook`] reads the body.
struct Webhook;

impl PartialSchema for Webhook {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let object = || ObjectBuilder::new().schema_type(Type::Object);
        let data = object()
            .property("orderId", text())
            .property("status", text());
        let data = data.required("orderId").required("status");
        let changed = object()
            .property(
                "eventType",
                text().enum_values(Some([PAYMENT_STATUS_CHANGED])),
            )
            .property("data", data.property("paymentKey", text()))
            .required("eventType")
            .required("data");
        let names = ["orderId", "status", "secret"];
        let deposit = names.into_iter().fold(object(), |deposit, name| {
            deposit.property(name, text()).required(name)
        });
        let other = format!("^(?!{PAYMENT_STATUS_CHANGED}$)");
        let other = object()
            .property("eventType", text().pattern(Some(other)))
            .required("eventType");
        let webhook = OneOfBuilder::new()
            .item(changed.description(Some("The status of a payment has changed.")))
            .item(deposit.description(Some("A deposit has come.")))
            .item(other.description(Some("Of another kind: it is passed over.")))
            .build();
        Schema::from(webhook).into()
    }
}

impl ToSchema for Webhook {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Field { name } => Self::invalid(name, error),
            Error::Store(error) => error.into(),
        }
    }
}
