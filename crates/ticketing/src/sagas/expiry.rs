//! The expiry of an unpaid purchase: undoes what the purchase took. The payment is deleted first: if that is refused,
//! because it was paid after all, the points stay used.

use contract::{Payload as _, payment, user};
use saga::Definition;

use super::{
    purchase::{PurchasePayload, delete_payment, restore_point},
    reply::reply,
    step::{SagaStep, definitions, refusable, required},
};

pub static EXPIRE: Definition = Definition {
    kind: "ticketing.expire",
    version: 1,
    steps: &definitions(&STEPS),
};

pub(super) const DELETE_PAYMENT: &str = "payment.delete";

pub(super) static STEPS: [SagaStep<PurchasePayload>; 2] = [
    SagaStep {
        definition: refusable(DELETE_PAYMENT, payment::DeleteRequest::TOPIC),
        request: delete_payment,
        reply: reply::<payment::DeleteResponse>(),
        compensation: None,
    },
    SagaStep {
        definition: required("user.restore.point", user::RestorePointRequest::TOPIC),
        request: restore_point,
        reply: reply::<user::RestorePointResponse>(),
        compensation: None,
    },
];
