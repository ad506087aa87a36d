//! The purchase: from a reservation to a payment that the buyer can settle.
//!
//! **To add a step:** an entry of `STEPS`, whose length grows. Its definition is [`check`] if it takes nothing (early, if it
//! can be), else [`undoable`] with `compensated_by` and a `compensation`. A name is the request's topic without `.request`,
//! and unique. What the step learns is a field of [`PurchasePayload`] with `#[serde(default)]`, as `payment_id` is.
//!
//! Stored sagas keep the version that they began with. So [`PURCHASE`] gets version 2, and a second [`Definition`] beside it
//! has version 1 and the definitions of the steps before, one by one (`STEPS` has the new one); it goes into `CATALOG` (`sagas.rs`) too. No step is renamed or
//! removed: requests of all versions are found in `STEPS` by the step's name.

use contract::{
    EventId, Money, Payload as _, PaymentId, Points, TicketId, Timestamp, UserId, payment, user,
};
use messaging::{
    Message, Rejection,
    coordinator::{SagaRecord, StepRequest},
};
use saga::Definition;
use serde::{Deserialize, Serialize};

use super::{
    reply::reply,
    step::{Compensation, SagaStep, check, definitions, read_payload, undoable},
};
use crate::model::Purchase;

pub static PURCHASE: Definition = Definition {
    kind: "ticketing.process",
    version: 1,
    steps: &definitions(&STEPS),
};

/// The field of [`PurchasePayload::payment_id`].
pub(super) const PAYMENT_ID: &str = "paymentId";
pub(super) const CREATE_PAYMENT: &str = "payment.create";

pub(super) static STEPS: [SagaStep<PurchasePayload>; 4] = [
    SagaStep {
        definition: check("user.check.active", user::CheckActiveRequest::TOPIC),
        request: |purchase, out| {
            out.message(&user::CheckActiveRequest {
                saga_id: out.saga_id,
                user_id: purchase.user_id,
            })
        },
        reply: reply::<user::CheckActiveResponse>(),
        compensation: None,
    },
    SagaStep {
        definition: undoable("user.reserve.point", user::ReservePointRequest::TOPIC)
            .compensated_by(user::RestorePointRequest::TOPIC),
        request: |purchase, out| {
            out.message(&user::ReservePointRequest {
                saga_id: out.saga_id,
                user_id: purchase.user_id,
                point: purchase.point,
            })
        },
        reply: reply::<user::ReservePointResponse>(),
        compensation: Some(Compensation {
            request: |purchase, out| out.message(&restore_point(purchase, out)),
            reply: reply::<user::RestorePointResponse>(),
        }),
    },
    SagaStep {
        definition: check("user.check.fraud", user::CheckFraudRequest::TOPIC),
        request: |purchase, out| {
            out.message(&user::CheckFraudRequest {
                saga_id: out.saga_id,
                user_id: purchase.user_id,
                total_amount: Some(purchase.total_amount),
            })
        },
        reply: reply::<user::CheckFraudResponse>(),
        compensation: None,
    },
    SagaStep {
        definition: undoable(CREATE_PAYMENT, payment::CreateRequest::TOPIC)
            .compensated_by(payment::DeleteRequest::TOPIC),
        request: |purchase, out| {
            out.message(&payment::CreateRequest {
                saga_id: out.saga_id,
                ticket_id: purchase.ticket_id,
                event_id: purchase.event_id,
                user_id: purchase.user_id,
                total_amount: purchase.total_amount,
                point: purchase.point,
                expires_at: purchase.expires_at,
            })
        },
        reply: reply::<payment::CreateResponse>(),
        compensation: Some(Compensation {
            request: delete_payment,
            reply: reply::<payment::DeleteResponse>(),
        }),
    },
];

pub(super) fn restore_point(
    purchase: &PurchasePayload,
    out: &StepRequest,
) -> user::RestorePointRequest {
    user::RestorePointRequest {
        saga_id: out.saga_id,
        user_id: purchase.user_id,
        point: purchase.point,
        held_by: Some(purchase.ticket_id.purchase_saga()),
        refunded: false,
    }
}

pub(super) fn delete_payment(purchase: &PurchasePayload, out: &StepRequest) -> Message {
    out.message(&payment::DeleteRequest {
        saga_id: out.saga_id,
        payment_id: purchase.payment_id(),
    })
}

/// The payload of a purchase's saga, and of its expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurchasePayload {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    pub expires_at: Option<Timestamp>,
    /// The id that the payment service gave to the payment; `None` until its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
}

impl From<Purchase> for PurchasePayload {
    fn from(purchase: Purchase) -> Self {
        Self {
            ticket_id: purchase.ticket_id,
            event_id: purchase.event_id,
            user_id: purchase.user_id,
            total_amount: purchase.total_amount,
            point: purchase.point,
            expires_at: Some(purchase.expires_at),
            payment_id: None,
        }
    }
}

impl PurchasePayload {
    /// # Errors
    /// A [`Rejection`] if the stored payload cannot be read.
    pub fn of(saga: &SagaRecord) -> Result<Self, Rejection> {
        read_payload(saga)
    }

    /// The id of this purchase's payment: from the reply, or the one that this program's payment service derives from
    /// the saga, which is known before any reply.
    #[must_use]
    pub fn payment_id(&self) -> PaymentId {
        let derived = || PaymentId::of_saga(self.ticket_id.purchase_saga());
        self.payment_id.unwrap_or_else(derived)
    }

    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a payload has string keys only")
    }
}
