//! What a participant's response means to the saga that asked.

use contract::{Payload as _, PaymentId, SagaId, payment, ticketing::CancelTicketResponse, user};
use messaging::{Message, Rejection};
use saga::Outcome;

/// A participant's answer, as the machine understands it.
#[derive(Debug)]
pub struct Answer {
    pub saga_id: SagaId,
    pub outcome: Outcome,
    /// What the payment service has named the payment that it opened.
    pub payment_id: Option<PaymentId>,
}

/// Reads a response.
///
/// # Errors
/// A [`Rejection`] where it cannot be read or is of no topic that a saga waits for.
pub fn read_answer(message: &Message) -> Result<Answer, Rejection> {
    let answer = |saga_id, proceeds: bool, reason: &str| {
        let outcome = if proceeds {
            Outcome::Proceed
        } else {
            Outcome::Refuse {
                reason: reason.to_owned(),
            }
        };
        Ok(Answer {
            saga_id,
            outcome,
            payment_id: None,
        })
    };
    match message.topic.as_str() {
        user::CheckActiveResponse::TOPIC => {
            let response: user::CheckActiveResponse = message.parse()?;
            answer(response.saga_id, response.is_active, "USER_NOT_ACTIVE")
        }
        user::ReservePointResponse::TOPIC => {
            let response: user::ReservePointResponse = message.parse()?;
            answer(response.saga_id, response.reserved, "NOT_ENOUGH_POINTS")
        }
        user::CheckFraudResponse::TOPIC => {
            let response: user::CheckFraudResponse = message.parse()?;
            answer(response.saga_id, !response.is_fraudulent, "FRAUD_SUSPECTED")
        }
        user::RestorePointResponse::TOPIC => {
            let response: user::RestorePointResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "POINTS_NOT_RESTORED")
        }
        payment::CreateResponse::TOPIC => {
            let response: payment::CreateResponse = message.parse()?;
            let created = answer(response.saga_id, response.succeed, "PAYMENT_NOT_CREATED")?;
            Ok(Answer {
                payment_id: response.payment_id.filter(|_| response.succeed),
                ..created
            })
        }
        payment::DeleteResponse::TOPIC => {
            let response: payment::DeleteResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "PAYMENT_UNDER_WAY")
        }
        payment::CancelResponse::TOPIC => {
            let response: payment::CancelResponse = message.parse()?;
            let code = response.code.as_deref().unwrap_or("PAYMENT_NOT_REFUNDED");
            answer(response.saga_id, response.succeed, code)
        }
        CancelTicketResponse::TOPIC => {
            let response: CancelTicketResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "TICKET_NOT_CANCELLED")
        }
        unknown => Err(Rejection::new(format_args!("no saga waits for {unknown}"))),
    }
}
