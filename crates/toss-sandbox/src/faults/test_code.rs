//! Test codes: the error or fault that a request asks for. Pure.

use std::time::Duration;

use toss::ErrorCode;

/// How long `SANDBOX_HANG` delays the answer: longer than any timeout of a client, but not for ever.
pub(crate) const HANG_MAX: Duration = Duration::from_secs(120);

/// The value of the header `TossPayments-Test-Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestCode {
    /// Answer this error without executing the request.
    Refuse(ErrorCode),
    /// Execute the request, and answer as if it had failed.
    ChargeThen500,
    /// Execute the request, and delay the answer.
    Hang,
}

impl TestCode {
    /// # Errors
    /// `INVALID_TEST_CODE` for an undocumented code, as at the live gateway.
    pub fn parse(name: &str) -> Result<Self, ErrorCode> {
        match name {
            "SANDBOX_CHARGE_THEN_500" => Ok(Self::ChargeThen500),
            "SANDBOX_HANG" => Ok(Self::Hang),
            name => ErrorCode::parse(name)
                .map(Self::Refuse)
                .ok_or(ErrorCode::INVALID_TEST_CODE),
        }
    }
}
