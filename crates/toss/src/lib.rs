#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`Client`]: the five calls; `transport`: one HTTP exchange; `outcome` and `listing`: what an answer proves, pure
//! - [`protocol`]: paths, headers and bodies; [`korea`]: its times; [`ErrorCode`]: its codes
//! - [`Settings`]: where the gateway is, and the limits of the client

mod client;
mod codes;
pub mod korea;
mod listing;
mod outcome;
pub mod protocol;
mod settings;
mod transport;

use std::fmt;

use jiff::Timestamp;

pub use client::Client;
pub use codes::{ErrorCode, Meaning};
pub use protocol::ChargeStatus;
pub use settings::{Error, KeyKind, Protocol, SecretKey, Settings};
pub use transport::{Exchange, ExchangeError, HttpAnswer};

/// Charges a payment that the buyer has authenticated.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The gateway's id of the payment.
    pub payment_key: String,
    /// The merchant's id of the payment: 6 to 64 characters of letters, digits, `-`, `_` and `=`.
    pub order_id: String,
    /// Minor units.
    pub amount: i64,
    /// At most 300 characters. The gateway repeats its first answer to a key for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; the live gateway ignores it.
    pub test_code: Option<String>,
}

/// Cancels a payment, in full or in part.
#[derive(Clone, Debug)]
pub struct Cancel {
    pub payment_key: String,
    /// Shown to the buyer: 1 to 200 characters.
    pub reason: String,
    /// Minor units; `None` cancels the whole balance.
    pub amount: Option<i64>,
    /// The bank account that receives the refund of a deposit.
    pub refund_account: Option<protocol::RefundAccount>,
    /// At most 300 characters. The gateway repeats its first answer to a key for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; the live gateway ignores it.
    pub test_code: Option<String>,
}

/// What an answer to confirm or cancel proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayOutcome {
    /// The request was executed exactly as asked.
    Approved(Charge),
    /// The request was not executed, and never will be.
    Declined { code: String, message: String },
    /// The request may have been executed: look the payment up before anything else.
    Unknown {
        /// The gateway's error code, if it sent one that proves nothing.
        code: Option<String>,
        reason: String,
    },
}

/// What a lookup proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Charge),
    /// The gateway says that there is no such payment.
    NotFound,
    /// The answer proves nothing: look again later.
    Unknown {
        reason: String,
    },
}

/// A payment as the gateway shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Charge {
    pub payment_key: String,
    pub order_id: String,
    pub status: ChargeStatus,
    /// Minor units.
    pub total_amount: i64,
    /// Minor units that were charged and not cancelled.
    pub balance_amount: i64,
    /// The secret that a `DEPOSIT_CALLBACK` webhook of this payment carries. Never printed.
    pub secret: Option<String>,
    /// The account that the buyer deposits to, for a payment by virtual account.
    pub virtual_account: Option<protocol::VirtualAccount>,
}

/// Hides the secret: with it anybody could forge a webhook.
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

/// The times between which transactions are listed. The end is exclusive: consecutive periods repeat nothing. (The
/// gateway rounds an end of 23:59:59 up to the next whole second.) Still store transactions by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A page of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    Page {
        /// In the order of their time.
        transactions: Vec<Transaction>,
        /// The page has fewer rows than requested: no page follows.
        is_last: bool,
        /// Rows of this page that could not be read: a list with any of them is not complete.
        unreadable: usize,
    },
    /// The answer proves nothing: list again later.
    Unknown { reason: String },
}

/// One approval or cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The id of this transaction, and the cursor of the page that follows it.
    pub transaction_key: String,
    pub payment_key: String,
    pub order_id: String,
    /// Tells an approval from a cancellation.
    pub status: ChargeStatus,
    /// Minor units as the gateway writes them: cancellations are negative for some merchants.
    pub amount: i64,
    /// `None` if the gateway sent no time, or one that cannot be read.
    pub at: Option<Timestamp>,
}
