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
    InvalidCardInstallmentPlan,
    ExceedMaxCardInstallmentPlan,
    NotSupportedInstallmentPlanCardOrMerchant,
    NotSupportedMonthlyInstallmentPlan,
    NotAllowedPointUse,
    InvalidAuthorizeAuth,
    InvalidUnregisteredSubmall,
    NotRegisteredBusiness,
    NotFoundTerminalId,
    RestrictedTransferAccount,
    InvalidAccountInfoReRegister,
    NotAvailablePayment,
    UnapprovedOrderId,
    BelowMinimumAmount,
    BelowZeroAmount,
    ExceedMaxAmount,
    ExceedMaxDailyPaymentCount,
    ExceedMaxPaymentAmount,
    ExceedMaxMonthlyPaymentAmount,
    ExceedMaxOneDayWithdrawAmount,
    ExceedMaxOneTimeWithdrawAmount,
    InvalidRefundAccountInfo,
    InvalidRefundAccountNumber,
    InvalidBank,
    ExceedCancelAmountDiscountAmount,
    ForbiddenBankRefundRequest,
    RefundRejected,
    RejectCardPayment,
    RejectCardCompany,
    RejectAccountPayment,
    RejectTosspayInvalidAccount,
    ExceedMaxAuthCount,
    ExceedMaxOneDayAmount,
    InvalidPassword,
    NotAvailableBank,
    FdsError,
    NotCancelableAmount,
    NotCancelablePayment,
    ExceedMaxRefundDue,
    NotAllowedPartialRefund,
    NotAllowedPartialRefundWaitingDeposit,
    NotCancelablePaymentForDormantUser,
    ExceedCancelLimit,
    NotFound,
    NotFoundPayment,
    NotFoundPaymentSession,
    AlreadyProcessedPayment,
    AlreadyCanceledPayment,
    AlreadyRefundPayment,
    NotMatchesRefundableAmount,
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
    FailedPartialRefund,
}

impl ErrorCode {
    /// Every code, in the order of the enum.
    pub const ALL: [Self; 80] = [
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
        Self::InvalidCardInstallmentPlan,
        Self::ExceedMaxCardInstallmentPlan,
        Self::NotSupportedInstallmentPlanCardOrMerchant,
        Self::NotSupportedMonthlyInstallmentPlan,
        Self::NotAllowedPointUse,
        Self::InvalidAuthorizeAuth,
        Self::InvalidUnregisteredSubmall,
        Self::NotRegisteredBusiness,
        Self::NotFoundTerminalId,
        Self::RestrictedTransferAccount,
        Self::InvalidAccountInfoReRegister,
        Self::NotAvailablePayment,
        Self::UnapprovedOrderId,
        Self::BelowMinimumAmount,
        Self::BelowZeroAmount,
        Self::ExceedMaxAmount,
        Self::ExceedMaxDailyPaymentCount,
        Self::ExceedMaxPaymentAmount,
        Self::ExceedMaxMonthlyPaymentAmount,
        Self::ExceedMaxOneDayWithdrawAmount,
        Self::ExceedMaxOneTimeWithdrawAmount,
        Self::InvalidRefundAccountInfo,
        Self::InvalidRefundAccountNumber,
        Self::InvalidBank,
        Self::ExceedCancelAmountDiscountAmount,
        Self::ForbiddenBankRefundRequest,
        Self::RefundRejected,
        Self::RejectCardPayment,
        Self::RejectCardCompany,
        Self::RejectAccountPayment,
        Self::RejectTosspayInvalidAccount,
        Self::ExceedMaxAuthCount,
        Self::ExceedMaxOneDayAmount,
        Self::InvalidPassword,
        Self::NotAvailableBank,
        Self::FdsError,
        Self::NotCancelableAmount,
        Self::NotCancelablePayment,
        Self::ExceedMaxRefundDue,
        Self::NotAllowedPartialRefund,
        Self::NotAllowedPartialRefundWaitingDeposit,
        Self::NotCancelablePaymentForDormantUser,
        Self::ExceedCancelLimit,
        Self::NotFound,
        Self::NotFoundPayment,
        Self::NotFoundPaymentSession,
        Self::AlreadyProcessedPayment,
        Self::AlreadyCanceledPayment,
        Self::AlreadyRefundPayment,
        Self::NotMatchesRefundableAmount,
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
        Self::FailedPartialRefund,
    ];

    /// The known code with this name on the wire.
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
            Self::InvalidCardInstallmentPlan => ("INVALID_CARD_INSTALLMENT_PLAN", 400, Refused),
            Self::ExceedMaxCardInstallmentPlan => ("EXCEED_MAX_CARD_INSTALLMENT_PLAN", 400, Refused),
            Self::NotSupportedInstallmentPlanCardOrMerchant => ("NOT_SUPPORTED_INSTALLMENT_PLAN_CARD_OR_MERCHANT", 400, Refused),
            Self::NotSupportedMonthlyInstallmentPlan => ("NOT_SUPPORTED_MONTHLY_INSTALLMENT_PLAN", 400, Refused),
            Self::NotAllowedPointUse => ("NOT_ALLOWED_POINT_USE", 400, Refused),
            Self::InvalidAuthorizeAuth => ("INVALID_AUTHORIZE_AUTH", 400, Refused),
            Self::InvalidUnregisteredSubmall => ("INVALID_UNREGISTERED_SUBMALL", 400, Refused),
            Self::NotRegisteredBusiness => ("NOT_REGISTERED_BUSINESS", 400, Refused),
            Self::NotFoundTerminalId => ("NOT_FOUND_TERMINAL_ID", 400, Refused),
            Self::RestrictedTransferAccount => ("RESTRICTED_TRANSFER_ACCOUNT", 400, Refused),
            Self::InvalidAccountInfoReRegister => ("INVALID_ACCOUNT_INFO_RE_REGISTER", 400, Refused),
            Self::NotAvailablePayment => ("NOT_AVAILABLE_PAYMENT", 400, Refused),
            Self::UnapprovedOrderId => ("UNAPPROVED_ORDER_ID", 400, Refused),
            Self::BelowMinimumAmount => ("BELOW_MINIMUM_AMOUNT", 400, Refused),
            Self::BelowZeroAmount => ("BELOW_ZERO_AMOUNT", 400, Refused),
            Self::ExceedMaxAmount => ("EXCEED_MAX_AMOUNT", 400, Refused),
            Self::ExceedMaxDailyPaymentCount => ("EXCEED_MAX_DAILY_PAYMENT_COUNT", 400, Refused),
            Self::ExceedMaxPaymentAmount => ("EXCEED_MAX_PAYMENT_AMOUNT", 400, Refused),
            Self::ExceedMaxMonthlyPaymentAmount => ("EXCEED_MAX_MONTHLY_PAYMENT_AMOUNT", 400, Refused),
            Self::ExceedMaxOneDayWithdrawAmount => ("EXCEED_MAX_ONE_DAY_WITHDRAW_AMOUNT", 400, Refused),
            Self::ExceedMaxOneTimeWithdrawAmount => ("EXCEED_MAX_ONE_TIME_WITHDRAW_AMOUNT", 400, Refused),
            Self::InvalidRefundAccountInfo => ("INVALID_REFUND_ACCOUNT_INFO", 400, Refused),
            Self::InvalidRefundAccountNumber => ("INVALID_REFUND_ACCOUNT_NUMBER", 400, Refused),
            Self::InvalidBank => ("INVALID_BANK", 400, Refused),
            Self::ExceedCancelAmountDiscountAmount => ("EXCEED_CANCEL_AMOUNT_DISCOUNT_AMOUNT", 400, Refused),
            Self::ForbiddenBankRefundRequest => ("FORBIDDEN_BANK_REFUND_REQUEST", 400, Refused),
            Self::RefundRejected => ("REFUND_REJECTED", 400, Refused),
            Self::RejectCardPayment => ("REJECT_CARD_PAYMENT", 403, Refused),
            Self::RejectCardCompany => ("REJECT_CARD_COMPANY", 403, Refused),
            Self::RejectAccountPayment => ("REJECT_ACCOUNT_PAYMENT", 403, Refused),
            Self::RejectTosspayInvalidAccount => ("REJECT_TOSSPAY_INVALID_ACCOUNT", 403, Refused),
            Self::ExceedMaxAuthCount => ("EXCEED_MAX_AUTH_COUNT", 403, Refused),
            Self::ExceedMaxOneDayAmount => ("EXCEED_MAX_ONE_DAY_AMOUNT", 403, Refused),
            Self::InvalidPassword => ("INVALID_PASSWORD", 403, Refused),
            Self::NotAvailableBank => ("NOT_AVAILABLE_BANK", 403, Refused),
            Self::FdsError => ("FDS_ERROR", 403, Refused),
            Self::NotCancelableAmount => ("NOT_CANCELABLE_AMOUNT", 403, Refused),
            Self::NotCancelablePayment => ("NOT_CANCELABLE_PAYMENT", 403, Refused),
            Self::ExceedMaxRefundDue => ("EXCEED_MAX_REFUND_DUE", 403, Refused),
            Self::NotAllowedPartialRefund => ("NOT_ALLOWED_PARTIAL_REFUND", 403, Refused),
            Self::NotAllowedPartialRefundWaitingDeposit => ("NOT_ALLOWED_PARTIAL_REFUND_WAITING_DEPOSIT", 403, Refused),
            Self::NotCancelablePaymentForDormantUser => ("NOT_CANCELABLE_PAYMENT_FOR_DORMANT_USER", 403, Refused),
            Self::ExceedCancelLimit => ("EXCEED_CANCEL_LIMIT", 403, Refused),
            Self::NotFound => ("NOT_FOUND", 404, Refused),
            Self::NotFoundPayment => ("NOT_FOUND_PAYMENT", 404, Refused),
            Self::NotFoundPaymentSession => ("NOT_FOUND_PAYMENT_SESSION", 404, Refused),
            // An earlier request did it, perhaps one whose answer was lost.
            Self::AlreadyProcessedPayment => ("ALREADY_PROCESSED_PAYMENT", 400, Unsettled),
            Self::AlreadyCanceledPayment => ("ALREADY_CANCELED_PAYMENT", 400, Unsettled),
            Self::AlreadyRefundPayment => ("ALREADY_REFUND_PAYMENT", 400, Unsettled),
            Self::NotMatchesRefundableAmount => ("NOT_MATCHES_REFUNDABLE_AMOUNT", 400, Unsettled),
            Self::DuplicatedOrderId => ("DUPLICATED_ORDER_ID", 400, Unsettled),
            Self::DuplicatedRequest => ("DUPLICATED_REQUEST", 400, Unsettled),
            // A fault between the gateway and the bank, with the status 400.
            Self::ProviderError => ("PROVIDER_ERROR", 400, Unsettled),
            Self::CardProcessingError => ("CARD_PROCESSING_ERROR", 400, Unsettled),
            // The client's fault, or overload: the request was not judged.
            Self::InvalidApiKey => ("INVALID_API_KEY", 400, Unsettled),
            Self::UnauthorizedKey => ("UNAUTHORIZED_KEY", 401, Unsettled),
            Self::ForbiddenRequest => ("FORBIDDEN_REQUEST", 403, Unsettled),
            Self::ForbiddenConsecutiveRequest => ("FORBIDDEN_CONSECUTIVE_REQUEST", 403, Unsettled),
            Self::IncorrectBasicAuthFormat => ("INCORRECT_BASIC_AUTH_FORMAT", 403, Unsettled),
            Self::IdempotentRequestProcessing => ("IDEMPOTENT_REQUEST_PROCESSING", 409, Unsettled),
            // Only a sandbox sends this one: the live gateway repeats its first answer.
            Self::IdempotencyKeyReused => ("IDEMPOTENCY_KEY_REUSED", 422, Unsettled),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", 429, Unsettled),
            Self::CommonError => ("COMMON_ERROR", 500, Unsettled),
            Self::UnknownError => ("UNKNOWN_ERROR", 500, Unsettled),
            Self::UnknownPaymentError => ("UNKNOWN_PAYMENT_ERROR", 500, Unsettled),
            Self::FailedInternalSystemProcessing => ("FAILED_INTERNAL_SYSTEM_PROCESSING", 500, Unsettled),
            Self::FailedPaymentInternalSystemProcessing => ("FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING", 500, Unsettled),
            Self::FailedMethodHandlingCancel => ("FAILED_METHOD_HANDLING_CANCEL", 500, Unsettled),
            Self::FailedRefundProcess => ("FAILED_REFUND_PROCESS", 500, Unsettled),
            Self::FailedPartialRefund => ("FAILED_PARTIAL_REFUND", 500, Unsettled),
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
            ErrorCode::FailedPartialRefund as usize + 1,
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
