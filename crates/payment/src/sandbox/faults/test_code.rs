//! The test codes: which error or fault a request asks for. Pure.

use std::time::Duration;

use crate::gateway::ErrorCode;

/// How long `SANDBOX_HANG` keeps its caller waiting: longer than anyone's patience, but not for ever.
pub(in crate::sandbox) const HANG_MAX: Duration = Duration::from_secs(120);

/// What the header `TossPayments-Test-Code` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum TestCode {
    /// Answer this error; do nothing.
    Refuse(ErrorCode),
    /// Do it, then answer as if it had failed.
    ChargeThen500,
    /// Do it, then keep the caller waiting.
    Hang,
}

impl TestCode {
    /// # Errors
    /// A code that nobody documented is itself an error, as at the live gateway.
    pub fn parse(name: &str) -> Result<Self, ErrorCode> {
        match name {
            "SANDBOX_CHARGE_THEN_500" => Ok(Self::ChargeThen500),
            "SANDBOX_HANG" => Ok(Self::Hang),
            name => ErrorCode::parse(name)
                .map(Self::Refuse)
                .ok_or(ErrorCode::InvalidTestCode),
        }
    }
}
