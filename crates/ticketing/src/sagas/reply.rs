//! What a participant's response means to the saga that waits for it. A new step needs an `impl` [`Response`] for its
//! response, and one for its compensation's: whether it succeeded, and the `failure` that buyers read if not.
//! `Reply::learning` adds a field to the saga's payload.

use contract::{Payload, payment, ticketing::CancelTicketResponse, user};
use messaging::{Message, Rejection, coordinator::Reply};

use super::{cancellation, expiry, purchase, step::SagaStep};

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
pub(super) fn read(message: &Message) -> Result<Reply, Rejection> {
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
        let reply = Reply::new(self.saga_id, self.succeed, "PAYMENT_NOT_CREATED");
        match self.payment_id.filter(|_| self.succeed) {
            Some(payment_id) => reply.learning(purchase::PAYMENT_ID, payment_id.to_string()),
            None => reply,
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
