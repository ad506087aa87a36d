//! The error codes of the gateway that decide something here, each with its documented HTTP status and with what it
//! says of the money. Source: <https://docs.tosspayments.com/reference/error-codes>.
//!
//! The client reads the meaning, the sandbox reads the status: one table, so that they cannot drift apart.

/// What an error code says of the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// This request moved no money, and never will.
    Refused,
    /// Money may have moved, by this request or by an earlier one; or the gateway did not judge the request at all.
    Unsettled,
}

/// A code that this system knows. Codes that it does not know are judged by their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    InvalidRequest,
    InvalidTestCode,
    InvalidPaymentKey,
    InvalidOrderId,
    InvalidIdempotencyKey,
    InvalidRejectCard,
    InvalidStoppedCard,
    InvalidCardExpiration,
    InvalidCardNumber,
    InvalidCardLostOrStolen,
    BelowMinimumAmount,
    BelowZeroAmount,
    ExceedMaxAmount,
    ExceedMaxDailyPaymentCount,
    ExceedMaxPaymentAmount,
    RejectCardPayment,
    RejectCardCompany,
    RejectAccountPayment,
    ExceedMaxAuthCount,
    ExceedMaxOneDayAmount,
    InvalidPassword,
    NotAvailableBank,
    FdsError,
    NotCancelableAmount,
    NotCancelablePayment,
    ExceedMaxRefundDue,
    NotAllowedPartialRefund,
    NotFound,
    NotFoundPayment,
    NotFoundPaymentSession,
    AlreadyProcessedPayment,
    AlreadyCanceledPayment,
    AlreadyRefundPayment,
    DuplicatedOrderId,
    DuplicatedRequest,
    ProviderError,
    CardProcessingError,
    InvalidApiKey,
    UnauthorizedKey,
    ForbiddenRequest,
    ForbiddenConsecutiveRequest,
    IncorrectBasicAuthFormat,
    IdempotentRequestProcessing,
    IdempotencyKeyReused,
    TooManyRequests,
    CommonError,
    UnknownError,
    UnknownPaymentError,
    FailedInternalSystemProcessing,
    FailedPaymentInternalSystemProcessing,
    FailedMethodHandlingCancel,
    FailedRefundProcess,
}

impl ErrorCode {
    /// Every code, in the order of the enum.
    pub const ALL: [Self; 52] = [
        Self::InvalidRequest,
        Self::InvalidTestCode,
        Self::InvalidPaymentKey,
        Self::InvalidOrderId,
        Self::InvalidIdempotencyKey,
        Self::InvalidRejectCard,
        Self::InvalidStoppedCard,
        Self::InvalidCardExpiration,
        Self::InvalidCardNumber,
        Self::InvalidCardLostOrStolen,
        Self::BelowMinimumAmount,
        Self::BelowZeroAmount,
        Self::ExceedMaxAmount,
        Self::ExceedMaxDailyPaymentCount,
        Self::ExceedMaxPaymentAmount,
        Self::RejectCardPayment,
        Self::RejectCardCompany,
        Self::RejectAccountPayment,
        Self::ExceedMaxAuthCount,
        Self::ExceedMaxOneDayAmount,
        Self::InvalidPassword,
        Self::NotAvailableBank,
        Self::FdsError,
        Self::NotCancelableAmount,
        Self::NotCancelablePayment,
        Self::ExceedMaxRefundDue,
        Self::NotAllowedPartialRefund,
        Self::NotFound,
        Self::NotFoundPayment,
        Self::NotFoundPaymentSession,
        Self::AlreadyProcessedPayment,
        Self::AlreadyCanceledPayment,
        Self::AlreadyRefundPayment,
        Self::DuplicatedOrderId,
        Self::DuplicatedRequest,
        Self::ProviderError,
        Self::CardProcessingError,
        Self::InvalidApiKey,
        Self::UnauthorizedKey,
        Self::ForbiddenRequest,
        Self::ForbiddenConsecutiveRequest,
        Self::IncorrectBasicAuthFormat,
        Self::IdempotentRequestProcessing,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::CommonError,
        Self::UnknownError,
        Self::UnknownPaymentError,
        Self::FailedInternalSystemProcessing,
        Self::FailedPaymentInternalSystemProcessing,
        Self::FailedMethodHandlingCancel,
        Self::FailedRefundProcess,
    ];

    /// The code with this name on the wire, if it is one that this system knows.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that it comes with.
    pub const fn http_status(self) -> u16 {
        self.row().1
    }

    pub const fn meaning(self) -> Meaning {
        self.row().2
    }

    #[rustfmt::skip]
    const fn row(self) -> (&'static str, u16, Meaning) {
        use Meaning::{Refused, Unsettled};
        match self {
            Self::InvalidRequest => ("INVALID_REQUEST", 400, Refused),
            Self::InvalidTestCode => ("INVALID_TEST_CODE", 400, Refused),
            Self::InvalidPaymentKey => ("INVALID_PAYMENT_KEY", 400, Refused),
            Self::InvalidOrderId => ("INVALID_ORDER_ID", 400, Refused),
            Self::InvalidIdempotencyKey => ("INVALID_IDEMPOTENCY_KEY", 400, Refused),
            Self::InvalidRejectCard => ("INVALID_REJECT_CARD", 400, Refused),
            Self::InvalidStoppedCard => ("INVALID_STOPPED_CARD", 400, Refused),
            Self::InvalidCardExpiration => ("INVALID_CARD_EXPIRATION", 400, Refused),
            Self::InvalidCardNumber => ("INVALID_CARD_NUMBER", 400, Refused),
            Self::InvalidCardLostOrStolen => ("INVALID_CARD_LOST_OR_STOLEN", 400, Refused),
            Self::BelowMinimumAmount => ("BELOW_MINIMUM_AMOUNT", 400, Refused),
            Self::BelowZeroAmount => ("BELOW_ZERO_AMOUNT", 400, Refused),
            Self::ExceedMaxAmount => ("EXCEED_MAX_AMOUNT", 400, Refused),
            Self::ExceedMaxDailyPaymentCount => ("EXCEED_MAX_DAILY_PAYMENT_COUNT", 400, Refused),
            Self::ExceedMaxPaymentAmount => ("EXCEED_MAX_PAYMENT_AMOUNT", 400, Refused),
            Self::RejectCardPayment => ("REJECT_CARD_PAYMENT", 403, Refused),
            Self::RejectCardCompany => ("REJECT_CARD_COMPANY", 403, Refused),
            Self::RejectAccountPayment => ("REJECT_ACCOUNT_PAYMENT", 403, Refused),
            Self::ExceedMaxAuthCount => ("EXCEED_MAX_AUTH_COUNT", 403, Refused),
            Self::ExceedMaxOneDayAmount => ("EXCEED_MAX_ONE_DAY_AMOUNT", 403, Refused),
            Self::InvalidPassword => ("INVALID_PASSWORD", 403, Refused),
            Self::NotAvailableBank => ("NOT_AVAILABLE_BANK", 403, Refused),
            Self::FdsError => ("FDS_ERROR", 403, Refused),
            Self::NotCancelableAmount => ("NOT_CANCELABLE_AMOUNT", 403, Refused),
            Self::NotCancelablePayment => ("NOT_CANCELABLE_PAYMENT", 403, Refused),
            Self::ExceedMaxRefundDue => ("EXCEED_MAX_REFUND_DUE", 403, Refused),
            Self::NotAllowedPartialRefund => ("NOT_ALLOWED_PARTIAL_REFUND", 403, Refused),
            Self::NotFound => ("NOT_FOUND", 404, Refused),
            Self::NotFoundPayment => ("NOT_FOUND_PAYMENT", 404, Refused),
            Self::NotFoundPaymentSession => ("NOT_FOUND_PAYMENT_SESSION", 404, Refused),
            // It was done before, perhaps by a request of ours whose answer was lost.
            Self::AlreadyProcessedPayment => ("ALREADY_PROCESSED_PAYMENT", 400, Unsettled),
            Self::AlreadyCanceledPayment => ("ALREADY_CANCELED_PAYMENT", 400, Unsettled),
            Self::AlreadyRefundPayment => ("ALREADY_REFUND_PAYMENT", 400, Unsettled),
            Self::DuplicatedOrderId => ("DUPLICATED_ORDER_ID", 400, Unsettled),
            Self::DuplicatedRequest => ("DUPLICATED_REQUEST", 400, Unsettled),
            // A fault between the gateway and the bank, dressed as a 400.
            Self::ProviderError => ("PROVIDER_ERROR", 400, Unsettled),
            Self::CardProcessingError => ("CARD_PROCESSING_ERROR", 400, Unsettled),
            // Our fault, or overload: the request was not judged.
            Self::InvalidApiKey => ("INVALID_API_KEY", 400, Unsettled),
            Self::UnauthorizedKey => ("UNAUTHORIZED_KEY", 401, Unsettled),
            Self::ForbiddenRequest => ("FORBIDDEN_REQUEST", 403, Unsettled),
            Self::ForbiddenConsecutiveRequest => ("FORBIDDEN_CONSECUTIVE_REQUEST", 403, Unsettled),
            Self::IncorrectBasicAuthFormat => ("INCORRECT_BASIC_AUTH_FORMAT", 403, Unsettled),
            Self::IdempotentRequestProcessing => ("IDEMPOTENT_REQUEST_PROCESSING", 409, Unsettled),
            // Only the sandbox says this one: the live gateway would repeat the first answer.
            Self::IdempotencyKeyReused => ("IDEMPOTENCY_KEY_REUSED", 422, Unsettled),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", 429, Unsettled),
            Self::CommonError => ("COMMON_ERROR", 500, Unsettled),
            Self::UnknownError => ("UNKNOWN_ERROR", 500, Unsettled),
            Self::UnknownPaymentError => ("UNKNOWN_PAYMENT_ERROR", 500, Unsettled),
            Self::FailedInternalSystemProcessing => ("FAILED_INTERNAL_SYSTEM_PROCESSING", 500, Unsettled),
            Self::FailedPaymentInternalSystemProcessing => ("FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING", 500, Unsettled),
            Self::FailedMethodHandlingCancel => ("FAILED_METHOD_HANDLING_CANCEL", 500, Unsettled),
            Self::FailedRefundProcess => ("FAILED_REFUND_PROCESS", 500, Unsettled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_and_found_by_its_name() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            assert_eq!(ErrorCode::parse(code.name()), Some(code));
        }
        assert_eq!(
            ErrorCode::ALL.len(),
            ErrorCode::FailedRefundProcess as usize + 1,
            "a code added at the end of the enum must be listed too"
        );
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
