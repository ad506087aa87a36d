//! Requests to the user service, and its responses.

use messaging::payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Money, Points, SagaId, UserId};

/// May this user buy at all?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckActiveRequest {
    pub saga_id: SagaId,
    pub user_id: UserId,
}
payload!(CheckActiveRequest, "user.check.active.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckActiveResponse {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub is_active: bool,
}
payload!(CheckActiveResponse, "user.check.active.response", saga_id);

/// Take points from the balance and hold them for this saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservePointRequest {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
}
payload!(ReservePointRequest, "user.reserve.point.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservePointResponse {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
    pub reserved: bool,
}
payload!(ReservePointResponse, "user.reserve.point.response", saga_id);

/// Give held points back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointRequest {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
    /// The saga that holds the points, where it is another than the one that asks (an expired purchase).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<SagaId>,
    /// No money of the purchase is kept: points that were used come back too. Otherwise they stay used.
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "crate::lenient::null_is_absent"
    )]
    pub refunded: bool,
}
payload!(RestorePointRequest, "user.restore.point.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointResponse {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
    pub succeed: bool,
}
payload!(RestorePointResponse, "user.restore.point.response", saga_id);

/// Does this purchase look like fraud?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckFraudRequest {
    pub saga_id: SagaId,
    pub user_id: UserId,
    /// The price of the purchase, for the rule about large amounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_amount: Option<Money>,
}
payload!(CheckFraudRequest, "user.check.fraud.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckFraudResponse {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub is_fraudulent: bool,
}
payload!(CheckFraudResponse, "user.check.fraud.response", saga_id);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_names_no_refund_is_read_as_others_write_it() {
        let id = "1a2b3c4d-0000-4000-8000-000000000001";
        for rest in ["", r#","refunded":null,"heldBy":null"#] {
            let text = format!(r#"{{"sagaId":"{id}","userId":1,"point":5{rest}}}"#);
            let request: RestorePointRequest = serde_json::from_str(&text).unwrap();
            assert_eq!((request.refunded, request.held_by), (false, None));
        }
    }
}
