//! The payment gateway, behind five operations: take money, give it back, look a payment up by either of its names,
//! and list what happened. It turns every answer, and every silence, into what it proves: approved, declined, or not
//! known.
//!
//! It owns a pool of connections and nothing else. "Not known" is an honest answer here: the caller records the
//! attempt before asking, and settles it later by [`Gateway::find_by_key`] or [`Gateway::find_by_order`].
//!
//! The words are those of Toss Payments, the one protocol that is built. A protocol that authorises first and captures
//! later (as Stripe's PaymentIntents) fits behind the same five operations: the payment key names the intent; confirm
//! is the capture of what the buyer authorised; a lookup reads the intent's state, `requires_capture` being
//! [`ChargeStatus::InProgress`] and `succeeded` being [`ChargeStatus::Done`]; cancel is a refund or, before the
//! capture, the release of what was authorised. [`Protocol`] chooses, and the arms below are the only place that knows.

mod codes;
mod identity;
mod listing;
mod outcome;
pub mod protocol;
mod settings;
mod toss;
mod transport;

use std::fmt;

use contract::Timestamp;

pub use codes::{ErrorCode, Meaning};
pub use identity::{Identity, KeyKind};
pub use protocol::ChargeStatus;
pub use settings::{Error, Protocol, SecretKey, Settings};

use toss::Toss;

/// The client. Cloning it shares its connections.
#[derive(Clone, Debug)]
pub struct Gateway(Spoken);

/// One arm for each protocol.
#[derive(Clone, Debug)]
enum Spoken {
    Toss(Toss),
}

impl Gateway {
    /// # Errors
    /// When a setting cannot work; the gateway itself is not asked.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        match settings.protocol {
            Protocol::Toss => Ok(Self(Spoken::Toss(Toss::new(settings)?))),
        }
    }

    /// Takes the money. [`Outcome::Approved`] means that exactly this payment was charged exactly this amount;
    /// [`Outcome::Declined`] that this request moved nothing and never will. Asked once: it is never repeated here.
    pub async fn confirm(&self, confirm: &Confirm) -> Outcome {
        match &self.0 {
            Spoken::Toss(toss) => toss.confirm(confirm).await,
        }
    }

    /// Gives money back. [`Outcome::Approved`] means that this cancellation has been done, once;
    /// [`Outcome::Declined`] that it was not and never will be. Asked once: it is never repeated here.
    pub async fn cancel(&self, cancel: &Cancel) -> Outcome {
        match &self.0 {
            Spoken::Toss(toss) => toss.cancel(cancel).await,
        }
    }

    /// Where the payment with the gateway's key stands. [`Lookup::NotFound`] only in the gateway's own words; a broken
    /// connection is tried again at once, as often as configured.
    pub async fn find_by_key(&self, payment_key: &str) -> Lookup {
        match &self.0 {
            Spoken::Toss(toss) => toss.find_by_key(payment_key).await,
        }
    }

    /// Where the payment of our order stands; as [`Self::find_by_key`].
    pub async fn find_by_order(&self, order_id: &str) -> Lookup {
        match &self.0 {
            Spoken::Toss(toss) => toss.find_by_order(order_id).await,
        }
    }

    /// A page of what happened in a period, oldest first: at most `limit` transactions (held within 1 and 5000), those
    /// after the transaction named by `after`. A row that cannot be read is counted and hides no other. To go on, ask
    /// again after the last transaction of the page, until a page is the last; every page that is not the last has a
    /// transaction to go on from. A broken connection is tried again as with a lookup.
    pub async fn transactions(&self, period: &Period, after: Option<&str>, limit: u32) -> Listing {
        match &self.0 {
            Spoken::Toss(toss) => toss.transactions(period, after, limit).await,
        }
    }
}

/// Take the money of a payment that the buyer has authenticated.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The gateway's name for the payment.
    pub payment_key: String,
    /// Our name for it: 6 to 64 characters of letters, digits, `-`, `_` and `=`.
    pub order_id: String,
    /// Minor units.
    pub amount: i64,
    /// At most 300 characters; the same key gets the first answer again, for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; ignored by the live one.
    pub test_code: Option<String>,
}

/// Give money back.
#[derive(Clone, Debug)]
pub struct Cancel {
    pub payment_key: String,
    /// Shown to the buyer: 1 to 200 characters.
    pub reason: String,
    /// Minor units; `None` gives back everything that is left.
    pub amount: Option<i64>,
    /// Where the money of a virtual account goes.
    pub refund_account: Option<protocol::RefundAccount>,
    /// At most 300 characters; the same key gets the first answer again, for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; ignored by the live one.
    pub test_code: Option<String>,
}

/// What became of a confirm or a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, exactly as asked.
    Approved(Charge),
    /// It was not done, and this request never will be.
    Declined { code: String, message: String },
    /// It may have been done: look it up before anything else.
    Unknown {
        /// The gateway's own word, if it said one that does not decide.
        code: Option<String>,
        reason: String,
    },
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Charge),
    /// The gateway says that there is no such payment.
    NotFound,
    /// Nothing was learned: look again later.
    Unknown {
        reason: String,
    },
}

/// A payment as the gateway sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Charge {
    pub payment_key: String,
    pub order_id: String,
    pub status: ChargeStatus,
    /// Minor units.
    pub total_amount: i64,
    /// Minor units that were charged and not given back.
    pub balance_amount: i64,
    /// What an unsigned webhook about this payment must carry. Never printed.
    pub secret: Option<String>,
    /// Where the buyer's money is waited for, of a payment by virtual account.
    pub virtual_account: Option<protocol::VirtualAccount>,
}

/// Whoever reads the secret in a log could write a webhook that is believed.
impl fmt::Debug for Charge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Charge")
            .field("payment_key", &self.payment_key)
            .field("order_id", &self.order_id)
            .field("status", &self.status)
            .field("total_amount", &self.total_amount)
            .field("balance_amount", &self.balance_amount)
            .field("secret", &self.secret.as_ref().map(|_| "***"))
            .finish()
    }
}

/// From when until when transactions are listed, by the time of the transaction. At Toss the end is exclusive: a list
/// up to midnight ends with the day's last millisecond, and the period that begins where this one ends repeats
/// nothing. (An end of 23:59:59 is answered up to the next whole second.) Whoever keeps transactions should keep them
/// by key all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A page of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    Page {
        /// In the order of the gateway, which is that of their time.
        transactions: Vec<Transaction>,
        /// Fewer rows than were asked for: none follow.
        is_last: bool,
        /// Rows of this page that could not be read. What they say is not known: a list with any is not complete.
        unreadable: usize,
    },
    /// Nothing was learned: list again later.
    Unknown { reason: String },
}

/// One approval or cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Names this transaction, and the page that follows it.
    pub transaction_key: String,
    pub payment_key: String,
    pub order_id: String,
    /// Says what it is: an approval or a cancellation.
    pub status: ChargeStatus,
    /// Minor units, as the gateway writes them: cancellations are below zero at some merchants.
    pub amount: i64,
    /// `None` where the gateway gives no time, or one that cannot be read.
    pub at: Option<Timestamp>,
}
