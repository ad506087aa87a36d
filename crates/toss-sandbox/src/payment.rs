//! A payment as the sandbox stores it, and as it is sent. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use toss::ChargeStatus as Status;
use toss::korea;
use toss::protocol::{CancelEntry, ErrorBody, PaymentBody, VirtualAccount};

/// The bank of every virtual account of the sandbox.
const BANK_CODE: &str = "20";

/// The method of payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Method {
    #[default]
    Card,
    VirtualAccount,
}

impl Method {
    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Card => "CARD",
            Self::VirtualAccount => "VIRTUAL_ACCOUNT",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Card, Self::VirtualAccount]
            .into_iter()
            .find(|method| method.as_str() == name)
    }

    /// The name on the wire, which is Korean for every merchant.
    pub fn on_the_wire(self) -> &'static str {
        match self {
            Self::Card => "카드",
            Self::VirtualAccount => "가상계좌",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payment {
    pub key: String,
    pub order_id: String,
    pub method: Method,
    /// One of the documented statuses.
    pub status: Status,
    /// Minor units.
    pub total: i64,
    /// Minor units that can still be cancelled.
    pub balance: i64,
    pub requested_at: Timestamp,
    pub approved_at: Option<Timestamp>,
    /// Whether the merchant has confirmed it: then the order belongs to this payment.
    pub is_confirmed: bool,
    /// When it expires unless its status changes before.
    pub window_ends_at: Option<Timestamp>,
    /// How long a virtual account waits for the deposit.
    pub due_secs: i64,
    pub due_at: Option<Timestamp>,
    /// Sent to the merchant in the answer to the confirm of a virtual account.
    pub secret: Option<String>,
    pub account_number: Option<String>,
    pub failure_code: Option<String>,
    /// The number of the next transaction.
    pub next_transaction: i64,
    pub last_transaction_key: Option<String>,
    pub cancels: Vec<CancelEntry>,
}

impl Payment {
    /// Assigns the key of the next transaction.
    pub fn take_transaction_key(&mut self) -> String {
        let key = format!("{}.{}", self.key, self.next_transaction);
        self.next_transaction += 1;
        self.last_transaction_key = Some(key.clone());
        key
    }

    /// Whether a webhook announces its status: nothing before the confirm is announced.
    pub fn is_announced(&self) -> bool {
        !matches!(self.status, Status::Ready | Status::InProgress)
    }

    pub fn body(&self) -> PaymentBody {
        let is_shown = self.is_confirmed && self.method == Method::VirtualAccount;
        PaymentBody {
            payment_key: self.key.clone(),
            order_id: self.order_id.clone(),
            status: self.status.clone(),
            total_amount: self.total,
            balance_amount: Some(self.balance),
            currency: Some("KRW".to_owned()),
            method: Some(self.method.on_the_wire().to_owned()),
            requested_at: Some(korea::body_time(self.requested_at)),
            approved_at: self.approved_at.map(korea::body_time),
            last_transaction_key: self.last_transaction_key.clone(),
            cancels: (!self.cancels.is_empty()).then(|| self.cancels.clone()),
            failure: self.failure_code.as_ref().map(|code| ErrorBody {
                code: code.clone(),
                message: format!("the sandbox answers {code}"),
            }),
            secret: self.secret.clone().filter(|_| is_shown),
            virtual_account: is_shown.then(|| VirtualAccount {
                account_number: self.account_number.clone(),
                bank_code: Some(BANK_CODE.to_owned()),
                due_date: self.due_at.map(korea::body_time),
                expired: Some(self.status == Status::Expired),
            }),
        }
    }
}

/// A payment after a decision, and the money that it moved in its last transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub payment: Payment,
    /// Minor units; negative for a refund.
    pub moved: Option<i64>,
}
