//! Points that a saga holds: reserved, then used or restored.
//!
//! Pure decisions; each returns the records to save together. A hold records the replies to a saga, so that duplicate,
//! late and reordered requests take effect at most once:
//!
//! | hold     | reserve        | restore                  | restore, refunded | paid | payment cancelled |
//! |----------|----------------|--------------------------|-------------------|------|-------------------|
//! | none     | HELD / REFUSED | RESTORED, without points | as restore        | -    | -                 |
//! | HELD     | yes            | RESTORED                 | RESTORED          | USED | RESTORED          |
//! | USED     | yes            | no                       | RESTORED          | -    | RESTORED          |
//! | RESTORED | no             | yes                      | as restore        | -    | -                 |
//! | REFUSED  | no             | yes: nothing was taken   | as restore        | -    | -                 |

use contract::{Points, SagaId, Timestamp, UserId, domain::PaymentStatus};
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};

use crate::{
    ledger::{BalanceChange, ChangeCause, EntryKind},
    model::User,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HoldState {
    /// Taken from the balance, to be used or restored.
    Held,
    /// Restored to the balance; or a tombstone: the restore came before the reserve, which then takes nothing.
    Restored,
    /// Used for a payment.
    Used,
    /// Never taken: the user is unknown or has too few points.
    Refused,
}

/// A user's points held by a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
    pub state: HoldState,
    /// The version of the payment that changed this hold last; 0 if none has.
    pub payment_version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

/// A broken invariant: the message becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvariantError {
    #[error("saga {saga_id} holds points of user {owner}, not of user {claimed}")]
    ForeignHold {
        saga_id: SagaId,
        owner: UserId,
        claimed: UserId,
    },
    #[error("saga {saga_id} asked for {known} points before, and now for {claimed}")]
    OtherAmount {
        saga_id: SagaId,
        known: Points,
        claimed: Points,
    },
    #[error("user {0} holds points but is not registered")]
    NoUser(UserId),
    #[error("the balance of user {0} is out of range")]
    Overflow(UserId),
}

/// Points requested by a saga.
#[derive(Debug, Clone, Copy)]
pub struct HoldRequest {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
}

/// Takes points for a saga; `true` if the saga holds them now.
///
/// # Errors
/// [`InvariantError`].
pub fn reserve(
    request: HoldRequest,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<(bool, BalanceChange), InvariantError> {
    if let Some(hold) = hold {
        hold.check_owner(request.user_id)?;
        return hold
            .repeat_reply(request)
            .map(|has| (has, BalanceChange::default()));
    }
    let left = user
        .as_ref()
        .and_then(|user| user.balance.checked_sub(request.point));
    let (Some(user), Some(left)) = (user, left) else {
        let refused = Hold::new(request, HoldState::Refused, now);
        return Ok((false, BalanceChange::of_hold(refused)));
    };
    let mut change = BalanceChange::of_hold(Hold::new(request, HoldState::Held, now));
    if request.point > Points::ZERO {
        let cause = ChangeCause::saga(EntryKind::Reserved, -request.point.get(), request.saga_id);
        change.post(user, left, cause, now);
    }
    Ok((true, change))
}

/// The reply to a saga's restore request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreReply {
    pub succeed: bool,
    /// Points restored by now.
    pub point: Points,
}

/// Why points are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreReason {
    /// The purchase was not paid: used points stay used.
    Unpaid,
    /// The payment was refunded, or deleted: used points are restored too.
    Refunded,
}

/// Restores the points of a saga's hold; the amount in the request is ignored.
///
/// # Errors
/// [`InvariantError`].
pub fn restore(
    request: HoldRequest,
    reason: RestoreReason,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<(RestoreReply, BalanceChange), InvariantError> {
    let reply = |succeed, point| RestoreReply { succeed, point };
    let Some(hold) = hold else {
        let tombstone = HoldRequest {
            point: Points::ZERO,
            ..request
        };
        let tombstone = Hold::new(tombstone, HoldState::Restored, now);
        return Ok((reply(true, Points::ZERO), BalanceChange::of_hold(tombstone)));
    };
    hold.check_owner(request.user_id)?;
    match (hold.state, reason) {
        (HoldState::Held, RestoreReason::Unpaid | RestoreReason::Refunded)
        | (HoldState::Used, RestoreReason::Refunded) => {
            let reply = reply(true, hold.point);
            Ok((reply, settle(hold, HoldState::Restored, user, now)?))
        }
        (HoldState::Restored, RestoreReason::Unpaid | RestoreReason::Refunded) => {
            Ok((reply(true, hold.point), BalanceChange::default()))
        }
        (HoldState::Refused, RestoreReason::Unpaid | RestoreReason::Refunded) => {
            Ok((reply(true, Points::ZERO), BalanceChange::default()))
        }
        (HoldState::Used, RestoreReason::Unpaid) => {
            Ok((reply(false, Points::ZERO), BalanceChange::default()))
        }
    }
}

/// The state of a payment, as far as points need it.
#[derive(Debug, Clone, Copy)]
pub struct PaymentUpdate {
    pub user_id: UserId,
    pub status: PaymentStatus,
    pub version: i64,
}

/// Applies a payment's state: a success uses the points, a cancellation restores them. A version not newer than the one
/// that changed this hold last changes nothing.
///
/// # Errors
/// [`InvariantError`].
pub fn apply_payment(
    payment: PaymentUpdate,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<BalanceChange, InvariantError> {
    let Some(mut hold) = hold else {
        return Ok(BalanceChange::default());
    };
    hold.check_owner(payment.user_id)?;
    // A foreign payment service may count versions from 0, which is also a new hold's value. The states below let such a
    // message change a hold once, even if it is repeated.
    let is_first = payment.version == 0 && hold.payment_version == 0;
    if payment.version <= hold.payment_version && !is_first {
        return Ok(BalanceChange::default());
    }
    hold.payment_version = payment.version;
    match (payment.status, hold.state) {
        (PaymentStatus::Succeeded, HoldState::Held) => settle(hold, HoldState::Used, user, now),
        (PaymentStatus::Cancelled, HoldState::Held | HoldState::Used) => {
            settle(hold, HoldState::Restored, user, now)
        }
        (PaymentStatus::Succeeded, HoldState::Used)
        | (
            PaymentStatus::Succeeded | PaymentStatus::Cancelled,
            HoldState::Restored | HoldState::Refused,
        )
        | (
            PaymentStatus::Created
            | PaymentStatus::Confirming
            | PaymentStatus::Failed
            | PaymentStatus::Deleted,
            HoldState::Held | HoldState::Restored | HoldState::Used | HoldState::Refused,
        ) => Ok(BalanceChange::default()),
    }
}

/// Ends a hold: used points stay taken, others return to the balance.
fn settle(
    hold: Hold,
    state: HoldState,
    user: Option<User>,
    now: Timestamp,
) -> Result<BalanceChange, InvariantError> {
    let (point, saga_id, user_id) = (hold.point, hold.saga_id, hold.user_id);
    let (kind, returned) = match state {
        HoldState::Used => (EntryKind::Used, Points::ZERO),
        HoldState::Held | HoldState::Restored | HoldState::Refused => (EntryKind::Restored, point),
    };
    let mut change = BalanceChange::of_hold(hold.with_state(state, now));
    if point > Points::ZERO {
        let user = user.ok_or(InvariantError::NoUser(user_id))?;
        let after = user.balance.checked_add(returned);
        let after = after.ok_or(InvariantError::Overflow(user_id))?;
        let cause = ChangeCause::saga(kind, returned.get(), saga_id);
        change.post(user, after, cause, now);
    }
    Ok(change)
}

impl Hold {
    fn new(request: HoldRequest, state: HoldState, now: Timestamp) -> Self {
        Self {
            saga_id: request.saga_id,
            user_id: request.user_id,
            point: request.point,
            state,
            payment_version: 0,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    fn with_state(self, state: HoldState, now: Timestamp) -> Self {
        Self {
            state,
            updated_at: now,
            ..self
        }
    }

    fn check_owner(&self, claimed: UserId) -> Result<(), InvariantError> {
        if self.user_id == claimed {
            return Ok(());
        }
        Err(InvariantError::ForeignHold {
            saga_id: self.saga_id,
            owner: self.user_id,
            claimed,
        })
    }

    /// The reply to a repeated request: the current state, so that restored points pay for nothing.
    fn repeat_reply(&self, request: HoldRequest) -> Result<bool, InvariantError> {
        let has = match self.state {
            HoldState::Held | HoldState::Used => true,
            HoldState::Refused => false,
            // It may be a tombstone, which has no amount.
            HoldState::Restored => return Ok(false),
        };
        if self.point == request.point {
            return Ok(has);
        }
        Err(InvariantError::OtherAmount {
            saga_id: self.saga_id,
            known: self.point,
            claimed: request.point,
        })
    }
}

impl Record for Hold {
    const TABLE: &'static Table = &Table {
        name: "point_hold",
        columns: &[
            Column::text("saga_id"),
            Column::integer("user_id"),
            Column::integer("point"),
            Column::text("state"),
            Column::integer("payment_version"),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "saga_id",
        constraints: &[
            "CHECK (point >= 0)",
            "CHECK (state IN ('HELD', 'RESTORED', 'USED', 'REFUSED'))",
        ],
        indexes: &[],
    };
}

#[cfg(test)]
mod tests;
