//! The expiry of an unpaid purchase: undoes what the purchase took. The payment is deleted first: if that is refused,
//! because it was paid after all, the points stay used.
//!
//! No compensation of the purchase runs here, because its saga has ended. So what a step of the purchase takes is given back
//! by a `required` step after the first, in a new version of [`EXPIRE`] (as `purchase.rs` says, with `CATALOG`). Its request
//! names the purchase's saga, as `held_by` does: this saga has an id of its own. The participant also gets it for purchases
//! that began before there was such a step, and answers as if it had given back.

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
        // The payment was deleted before, so no money was kept. If it had succeeded and was refunded, the user service may
        // know only the first of that.
        request: |purchase, out| {
            out.message(&user::RestorePointRequest {
                refunded: true,
                ..restore_point(purchase, out)
            })
        },
        reply: reply::<user::RestorePointResponse>(),
        compensation: None,
    },
];
