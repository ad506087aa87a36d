//! The gateway's error codes that the client judges, each with its documented HTTP status and what it proves. Source:
//! <https://docs.tosspayments.com/reference/error-codes>.
//!
//! A client reads the meaning, a double of the gateway reads the status: one table, so that they cannot drift apart.

/// What an error code proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The request moved no money, and never will.
    Refused,
    /// Money may have moved, by this request or an earlier one; or the gateway did not judge the request.
    Unsettled,
}

/// A known code. An unknown one proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    name: &'static str,
    http_status: u16,
    meaning: Meaning,
}

/// The codes that a program names.
#[rustfmt::skip]
impl ErrorCode {
    pub const INVALID_REQUEST: Self = Self::refused("INVALID_REQUEST", 400);
    pub const INVALID_TEST_CODE: Self = Self::refused("INVALID_TEST_CODE", 400);
    pub const INVALID_PAYMENT_KEY: Self = Self::refused("INVALID_PAYMENT_KEY", 400);
    pub const INVALID_ORDER_ID: Self = Self::refused("INVALID_ORDER_ID", 400);
    pub const INVALID_IDEMPOTENCY_KEY: Self = Self::refused("INVALID_IDEMPOTENCY_KEY", 400);
    pub const BELOW_ZERO_AMOUNT: Self = Self::refused("BELOW_ZERO_AMOUNT", 400);
    pub const NOT_AVAILABLE_BANK: Self = Self::refused("NOT_AVAILABLE_BANK", 403);
    pub const NOT_CANCELABLE_AMOUNT: Self = Self::refused("NOT_CANCELABLE_AMOUNT", 403);
    pub const NOT_CANCELABLE_PAYMENT: Self = Self::refused("NOT_CANCELABLE_PAYMENT", 403);
    pub const NOT_FOUND: Self = Self::refused("NOT_FOUND", 404);
    pub const NOT_FOUND_PAYMENT: Self = Self::refused("NOT_FOUND_PAYMENT", 404);
    pub const NOT_FOUND_PAYMENT_SESSION: Self = Self::refused("NOT_FOUND_PAYMENT_SESSION", 404);
    pub const ALREADY_PROCESSED_PAYMENT: Self = Self::unsettled("ALREADY_PROCESSED_PAYMENT", 400);
    pub const ALREADY_CANCELED_PAYMENT: Self = Self::unsettled("ALREADY_CANCELED_PAYMENT", 400);
    pub const DUPLICATED_ORDER_ID: Self = Self::unsettled("DUPLICATED_ORDER_ID", 400);
    pub const PROVIDER_ERROR: Self = Self::unsettled("PROVIDER_ERROR", 400);
    pub const UNAUTHORIZED_KEY: Self = Self::unsettled("UNAUTHORIZED_KEY", 401);
    pub const IDEMPOTENT_REQUEST_PROCESSING: Self = Self::unsettled("IDEMPOTENT_REQUEST_PROCESSING", 409);
    pub const IDEMPOTENCY_KEY_REUSED: Self = Self::unsettled("IDEMPOTENCY_KEY_REUSED", 422);
    pub const FAILED_INTERNAL_SYSTEM_PROCESSING: Self = Self::unsettled("FAILED_INTERNAL_SYSTEM_PROCESSING", 500);
}

impl ErrorCode {
    /// Every code.
    #[rustfmt::skip]
    pub const ALL: [Self; 80] = [
        Self::INVALID_REQUEST,
        Self::INVALID_TEST_CODE,
        Self::INVALID_PAYMENT_KEY,
        Self::INVALID_ORDER_ID,
        Self::INVALID_IDEMPOTENCY_KEY,
        Self::refused("INVALID_REJECT_CARD", 400),
        Self::refused("INVALID_STOPPED_CARD", 400),
        Self::refused("INVALID_CARD_EXPIRATION", 400),
        Self::refused("INVALID_CARD_NUMBER", 400),
        Self::refused("INVALID_CARD_LOST_OR_STOLEN", 400),
        Self::refused("INVALID_CARD_INSTALLMENT_PLAN", 400),
        Self::refused("EXCEED_MAX_CARD_INSTALLMENT_PLAN", 400),
        Self::refused("NOT_SUPPORTED_INSTALLMENT_PLAN_CARD_OR_MERCHANT", 400),
        Self::refused("NOT_SUPPORTED_MONTHLY_INSTALLMENT_PLAN", 400),
        Self::refused("NOT_ALLOWED_POINT_USE", 400),
        Self::refused("INVALID_AUTHORIZE_AUTH", 400),
        Self::refused("INVALID_UNREGISTERED_SUBMALL", 400),
        Self::refused("NOT_REGISTERED_BUSINESS", 400),
        Self::refused("NOT_FOUND_TERMINAL_ID", 400),
        Self::refused("RESTRICTED_TRANSFER_ACCOUNT", 400),
        Self::refused("INVALID_ACCOUNT_INFO_RE_REGISTER", 400),
        Self::refused("NOT_AVAILABLE_PAYMENT", 400),
        Self::refused("UNAPPROVED_ORDER_ID", 400),
        Self::refused("BELOW_MINIMUM_AMOUNT", 400),
        Self::BELOW_ZERO_AMOUNT,
        Self::refused("EXCEED_MAX_AMOUNT", 400),
        Self::refused("EXCEED_MAX_DAILY_PAYMENT_COUNT", 400),
        Self::refused("EXCEED_MAX_PAYMENT_AMOUNT", 400),
        Self::refused("EXCEED_MAX_MONTHLY_PAYMENT_AMOUNT", 400),
        Self::refused("EXCEED_MAX_ONE_DAY_WITHDRAW_AMOUNT", 400),
        Self::refused("EXCEED_MAX_ONE_TIME_WITHDRAW_AMOUNT", 400),
        Self::refused("INVALID_REFUND_ACCOUNT_INFO", 400),
        Self::refused("INVALID_REFUND_ACCOUNT_NUMBER", 400),
        Self::refused("INVALID_BANK", 400),
        Self::refused("EXCEED_CANCEL_AMOUNT_DISCOUNT_AMOUNT", 400),
        Self::refused("FORBIDDEN_BANK_REFUND_REQUEST", 400),
        Self::refused("REFUND_REJECTED", 400),
        Self::refused("REJECT_CARD_PAYMENT", 403),
        Self::refused("REJECT_CARD_COMPANY", 403),
        Self::refused("REJECT_ACCOUNT_PAYMENT", 403),
        Self::refused("REJECT_TOSSPAY_INVALID_ACCOUNT", 403),
        Self::refused("EXCEED_MAX_AUTH_COUNT", 403),
        Self::refused("EXCEED_MAX_ONE_DAY_AMOUNT", 403),
        Self::refused("INVALID_PASSWORD", 403),
        Self::NOT_AVAILABLE_BANK,
        Self::refused("FDS_ERROR", 403),
        Self::NOT_CANCELABLE_AMOUNT,
        Self::NOT_CANCELABLE_PAYMENT,
        Self::refused("EXCEED_MAX_REFUND_DUE", 403),
        Self::refused("NOT_ALLOWED_PARTIAL_REFUND", 403),
        Self::refused("NOT_ALLOWED_PARTIAL_REFUND_WAITING_DEPOSIT", 403),
        Self::refused("NOT_CANCELABLE_PAYMENT_FOR_DORMANT_USER", 403),
        Self::refused("EXCEED_CANCEL_LIMIT", 403),
        Self::NOT_FOUND,
        Self::NOT_FOUND_PAYMENT,
        Self::NOT_FOUND_PAYMENT_SESSION,
        // An earlier request did it, perhaps one whose answer was lost.
        Self::ALREADY_PROCESSED_PAYMENT,
        Self::ALREADY_CANCELED_PAYMENT,
        Self::unsettled("ALREADY_REFUND_PAYMENT", 400),
        Self::unsettled("NOT_MATCHES_REFUNDABLE_AMOUNT", 400),
        Self::DUPLICATED_ORDER_ID,
        Self::unsettled("DUPLICATED_REQUEST", 400),
        // A fault between the gateway and the bank, with the status 400.
        Self::PROVIDER_ERROR,
        Self::unsettled("CARD_PROCESSING_ERROR", 400),
        // The client's fault, or overload: the request was not judged.
        Self::unsettled("INVALID_API_KEY", 400),
        Self::UNAUTHORIZED_KEY,
        Self::unsettled("FORBIDDEN_REQUEST", 403),
        Self::unsettled("FORBIDDEN_CONSECUTIVE_REQUEST", 403),
        Self::unsettled("INCORRECT_BASIC_AUTH_FORMAT", 403),
        Self::IDEMPOTENT_REQUEST_PROCESSING,
        // Only a sandbox sends this one: the live gateway repeats its first answer.
        Self::IDEMPOTENCY_KEY_REUSED,
        Self::unsettled("TOO_MANY_REQUESTS", 429),
        Self::unsettled("COMMON_ERROR", 500),
        Self::unsettled("UNKNOWN_ERROR", 500),
        Self::unsettled("UNKNOWN_PAYMENT_ERROR", 500),
        Self::FAILED_INTERNAL_SYSTEM_PROCESSING,
        Self::unsettled("FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING", 500),
        Self::unsettled("FAILED_METHOD_HANDLING_CANCEL", 500),
        Self::unsettled("FAILED_REFUND_PROCESS", 500),
        Self::unsettled("FAILED_PARTIAL_REFUND", 500),
    ];

    const fn refused(name: &'static str, http_status: u16) -> Self {
        let meaning = Meaning::Refused;
        Self {
            name,
            http_status,
            meaning,
        }
    }

    const fn unsettled(name: &'static str, http_status: u16) -> Self {
        let meaning = Meaning::Unsettled;
        Self {
            name,
            http_status,
            meaning,
        }
    }

    /// The known code with this name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name == name)
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The HTTP status that it comes with.
    pub const fn http_status(self) -> u16 {
        self.http_status
    }

    pub const fn meaning(self) -> Meaning {
        self.meaning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_and_found_by_its_name() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.name()), Some(code));
        }
        let named = [
            ErrorCode::INVALID_REQUEST,
            ErrorCode::INVALID_TEST_CODE,
            ErrorCode::INVALID_PAYMENT_KEY,
            ErrorCode::INVALID_ORDER_ID,
            ErrorCode::INVALID_IDEMPOTENCY_KEY,
            ErrorCode::BELOW_ZERO_AMOUNT,
            ErrorCode::NOT_AVAILABLE_BANK,
            ErrorCode::NOT_CANCELABLE_AMOUNT,
            ErrorCode::NOT_CANCELABLE_PAYMENT,
            ErrorCode::NOT_FOUND,
            ErrorCode::NOT_FOUND_PAYMENT,
            ErrorCode::NOT_FOUND_PAYMENT_SESSION,
            ErrorCode::ALREADY_PROCESSED_PAYMENT,
            ErrorCode::ALREADY_CANCELED_PAYMENT,
            ErrorCode::DUPLICATED_ORDER_ID,
            ErrorCode::PROVIDER_ERROR,
            ErrorCode::UNAUTHORIZED_KEY,
            ErrorCode::IDEMPOTENT_REQUEST_PROCESSING,
            ErrorCode::IDEMPOTENCY_KEY_REUSED,
            ErrorCode::FAILED_INTERNAL_SYSTEM_PROCESSING,
        ];
        for code in named {
            assert_eq!(
                ErrorCode::parse(code.name()),
                Some(code),
                "it must be listed too"
            );
        }
    }

    #[test]
    fn a_refusal_never_comes_as_a_server_error() {
        for code in ErrorCode::ALL {
            if code.meaning() == Meaning::Refused {
                assert!((400..500).contains(&code.http_status()), "{code:?}");
            }
        }
    }
}
