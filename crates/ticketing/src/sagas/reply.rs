//! What a participant's response means to the saga that waits for it.

use contract::{Payload, PaymentId, SagaId, payment, ticketing::CancelTicketResponse, user};
use messaging::{Message, Rejection};
use saga::Outcome;

use super::{cancellation, expiry, purchase, step::SagaStep};

/// A response, as the saga machine understands it.
#[derive(Debug)]
pub struct Reply {
    pub saga_id: SagaId,
    pub outcome: Outcome,
    /// The id that the payment service gave to the payment that it created.
    pub payment_id: Option<PaymentId>,
}

impl Reply {
    fn new(saga_id: SagaId, proceeds: bool, refusal: &str) -> Self {
        let outcome = if proceeds {
            Outcome::Proceed
        } else {
            Outcome::Refuse {
                reason: refusal.to_owned(),
            }
        };
        Self {
            saga_id,
            outcome,
            payment_id: None,
        }
    }
}

/// Reads the responses of one topic.
#[derive(Clone, Copy)]
pub(super) struct ReplyReader {
    pub topic: &'static str,
    read: fn(&Message) -> Result<Reply, Rejection>,
}

pub(super) const fn reply<R: Response>() -> ReplyReader {
    ReplyReader {
        topic: R::TOPIC,
        read: |message| Ok(message.parse::<R>()?.reply()),
    }
}

/// Reads a response of any topic that a saga waits for.
///
/// # Errors
/// A [`Rejection`] if it cannot be parsed, or no saga waits for its topic.
pub fn read_reply(message: &Message) -> Result<Reply, Rejection> {
    match readers().find(|reader| reader.topic == message.topic) {
        Some(reader) => (reader.read)(message),
        None => Err(Rejection::new(format_args!(
            "no saga waits for {}",
            message.topic
        ))),
    }
}

/// The readers of all steps; some appear more than once.
pub(super) fn readers() -> impl Iterator<Item = ReplyReader> {
    fn of<P>(step: &SagaStep<P>) -> impl Iterator<Item = ReplyReader> + use<P> {
        let undo = step.compensation.as_ref().map(|undo| undo.reply);
        [step.reply].into_iter().chain(undo)
    }
    let purchase = purchase::STEPS.iter().flat_map(of);
    let expiry = expiry::STEPS.iter().flat_map(of);
    let cancellation = cancellation::STEPS.iter().flat_map(of);
    purchase.chain(expiry).chain(cancellation)
}

/// A participant's response.
pub(super) trait Response: Payload {
    fn reply(self) -> Reply;
}

impl Response for user::CheckActiveResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, self.is_active, "USER_NOT_ACTIVE")
    }
}

impl Response for user::ReservePointResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, self.reserved, "NOT_ENOUGH_POINTS")
    }
}

impl Response for user::RestorePointResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, self.succeed, "POINTS_NOT_RESTORED")
    }
}

impl Response for user::CheckFraudResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, !self.is_fraudulent, "FRAUD_SUSPECTED")
    }
}

impl Response for payment::CreateResponse {
    fn reply(self) -> Reply {
        Reply {
            payment_id: self.payment_id.filter(|_| self.succeed),
            ..Reply::new(self.saga_id, self.succeed, "PAYMENT_NOT_CREATED")
        }
    }
}

impl Response for payment::DeleteResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, self.succeed, "PAYMENT_UNDER_WAY")
    }
}

impl Response for payment::CancelResponse {
    fn reply(self) -> Reply {
        let refusal = self.code.as_deref().unwrap_or("PAYMENT_NOT_REFUNDED");
        Reply::new(self.saga_id, self.succeed, refusal)
    }
}

impl Response for CancelTicketResponse {
    fn reply(self) -> Reply {
        Reply::new(self.saga_id, self.succeed, "TICKET_NOT_CANCELLED")
    }
}
