//! Points that a saga holds: reserved, then used or given back.
//!
//! Pure decisions; each returns what is to be saved together. A hold is the memory of what a saga was told, so that
//! however often, however late and in whatever order its requests come, each takes effect at most once:
//!
//! | hold     | reserve        | restore                     | restore, refunded    | paid | payment cancelled    |
//! |----------|----------------|-----------------------------|----------------------|------|----------------------|
//! | none     | HELD / REFUSED | RESTORED, without points    | as restore           | -    | -                    |
//! | HELD     | yes            | RESTORED, points given back | as restore           | USED | RESTORED, given back |
//! | USED     | yes            | no                          | RESTORED, given back | -    | RESTORED, given back |
//! | RESTORED | no             | yes                         | as restore           | -    | -                    |
//! | REFUSED  | no             | yes: nothing was taken      | as restore           | -    | -                    |

use contract::{Points, SagaId, Timestamp, UserId, domain::PaymentStatus};
use messaging::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

use crate::{
    ledger::{Cause, Change, EntryKind},
    model::User,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HoldState {
    /// Taken from the balance, to be used or given back.
    Held,
    /// Given back; or asked back before anything was taken, so that nothing is taken any more.
    Restored,
    /// Paid with.
    Used,
    /// Never taken: there were not enough points, or no such user.
    Refused,
}

/// What a saga holds of a user's points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
    pub state: HoldState,
    /// The version of the payment that changed this hold last; 0 where none has.
    pub payment_version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

/// What can only be where something is broken: the message becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
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

/// What a saga asks for.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub saga_id: SagaId,
    pub user_id: UserId,
    pub point: Points,
}

/// Takes points for a saga: `true` where the saga has them now.
///
/// # Errors
/// [`Broken`].
pub fn reserve(
    claim: Claim,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<(bool, Change), Broken> {
    if let Some(hold) = hold {
        hold.check_owner(claim.user_id)?;
        return hold.answer_again(claim).map(|has| (has, Change::default()));
    }
    let left = user
        .as_ref()
        .and_then(|user| user.balance.checked_sub(claim.point));
    let (Some(user), Some(left)) = (user, left) else {
        let refused = Hold::new(claim, HoldState::Refused, now);
        return Ok((false, Change::of_hold(refused)));
    };
    let mut change = Change::of_hold(Hold::new(claim, HoldState::Held, now));
    if claim.point > Points::ZERO {
        let cause = Cause::saga(EntryKind::Reserved, -claim.point.get(), claim.saga_id);
        change.book(user, left, cause, now);
    }
    Ok((true, change))
}

/// What a saga was told that asked for its points back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub succeed: bool,
    /// What the saga had taken and has given back by now.
    pub point: Points,
}

/// Why points are asked back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The purchase comes to nothing: what is paid with stays used.
    Unpaid,
    /// The money of the purchase has gone back: what was paid with comes back too.
    Refunded,
}

/// Gives back what a saga took: what its hold says, whatever the claim says.
///
/// # Errors
/// [`Broken`].
pub fn restore(
    claim: Claim,
    why: Why,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<(Restored, Change), Broken> {
    let Some(hold) = hold else {
        let tombstone = Claim {
            point: Points::ZERO,
            ..claim
        };
        let told = Restored {
            succeed: true,
            point: Points::ZERO,
        };
        let tombstone = Hold::new(tombstone, HoldState::Restored, now);
        return Ok((told, Change::of_hold(tombstone)));
    };
    hold.check_owner(claim.user_id)?;
    let told = |succeed, point| Restored { succeed, point };
    match (hold.state, why) {
        (HoldState::Held, Why::Unpaid | Why::Refunded) | (HoldState::Used, Why::Refunded) => {
            let point = hold.point;
            Ok((told(true, point), give_back(hold, user, now)?))
        }
        (HoldState::Restored, Why::Unpaid | Why::Refunded) => {
            Ok((told(true, hold.point), Change::default()))
        }
        (HoldState::Refused, Why::Unpaid | Why::Refunded) => {
            Ok((told(true, Points::ZERO), Change::default()))
        }
        (HoldState::Used, Why::Unpaid) => Ok((told(false, Points::ZERO), Change::default())),
    }
}

/// What a payment has become, as far as points go.
#[derive(Debug, Clone, Copy)]
pub struct Settlement {
    pub user_id: UserId,
    pub status: PaymentStatus,
    pub version: i64,
}

/// Follows a payment: paid, the points are used for good; cancelled, they come back. An older version of the
/// payment than the last that changed this hold changes nothing.
///
/// # Errors
/// [`Broken`].
pub fn settle(
    payment: Settlement,
    user: Option<User>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Result<Change, Broken> {
    let Some(mut hold) = hold else {
        return Ok(Change::default());
    };
    hold.check_owner(payment.user_id)?;
    // A payment service of another make may count from 0, which a hold has also where nothing was heard; a payment that
    // succeeded or was cancelled at once changes a hold once, however often it is told.
    let is_first = payment.version == 0 && hold.payment_version == 0;
    if payment.version <= hold.payment_version && !is_first {
        return Ok(Change::default());
    }
    hold.payment_version = payment.version;
    match (payment.status, hold.state) {
        (PaymentStatus::Succeeded, HoldState::Held) => mark_used(hold, user, now),
        (PaymentStatus::Cancelled, HoldState::Held | HoldState::Used) => give_back(hold, user, now),
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
        ) => Ok(Change::default()),
    }
}

fn mark_used(hold: Hold, user: Option<User>, now: Timestamp) -> Result<Change, Broken> {
    let (point, saga_id, user_id) = (hold.point, hold.saga_id, hold.user_id);
    let mut change = Change::of_hold(hold.turned(HoldState::Used, now));
    if point > Points::ZERO {
        let user = user.ok_or(Broken::NoUser(user_id))?;
        let balance = user.balance;
        let cause = Cause::saga(EntryKind::Used, 0, saga_id);
        change.book(user, balance, cause, now);
    }
    Ok(change)
}

fn give_back(hold: Hold, user: Option<User>, now: Timestamp) -> Result<Change, Broken> {
    let (point, saga_id, user_id) = (hold.point, hold.saga_id, hold.user_id);
    let mut change = Change::of_hold(hold.turned(HoldState::Restored, now));
    if point > Points::ZERO {
        let user = user.ok_or(Broken::NoUser(user_id))?;
        let after = user.balance.checked_add(point);
        let after = after.ok_or(Broken::Overflow(user_id))?;
        let cause = Cause::saga(EntryKind::Restored, point.get(), saga_id);
        change.book(user, after, cause, now);
    }
    Ok(change)
}

impl Hold {
    fn new(claim: Claim, state: HoldState, now: Timestamp) -> Self {
        Self {
            saga_id: claim.saga_id,
            user_id: claim.user_id,
            point: claim.point,
            state,
            payment_version: 0,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    fn turned(self, state: HoldState, now: Timestamp) -> Self {
        Self {
            state,
            updated_at: now,
            ..self
        }
    }

    fn check_owner(&self, claimed: UserId) -> Result<(), Broken> {
        if self.user_id == claimed {
            return Ok(());
        }
        Err(Broken::ForeignHold {
            saga_id: self.saga_id,
            owner: self.user_id,
            claimed,
        })
    }

    /// What a saga is told that asks once more: the truth of now, so that nobody buys with points that went back.
    fn answer_again(&self, claim: Claim) -> Result<bool, Broken> {
        let has = match self.state {
            HoldState::Held | HoldState::Used => true,
            HoldState::Refused => false,
            // It may be a tombstone, which knows no amount.
            HoldState::Restored => return Ok(false),
        };
        if self.point == claim.point {
            return Ok(has);
        }
        Err(Broken::OtherAmount {
            saga_id: self.saga_id,
            known: self.point,
            claimed: claim.point,
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
            Column::integer("version"),
        ],
        key: "saga_id",
        constraints: &[
            "CHECK (point >= 0)",
            "CHECK (state IN ('HELD', 'RESTORED', 'USED', 'REFUSED'))",
        ],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.saga_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
mod tests;
