//! The Lua scripts, one for each operation, and the keys of an event. Every script gets the same keys in the same
//! order, all with the event's hash tag: one event is one slot of a cluster, and one script is atomic.

use contract::{EventId, Timestamp};
use redis::{Script, ScriptInvocation};

use crate::{
    model::AgreedPrice,
    redis_server::RedisServer,
    reservations::{Deadlines, claim::Claim},
};

pub(super) struct Scripts {
    pub reserve: Script,
    pub undo_grant: Script,
    pub find: Script,
    pub stats: Script,
    pub complete: Script,
    pub retake: Script,
    pub release: Script,
    pub set_sale: Script,
    pub release_by_buyer: Script,
    pub begin_expiry: Script,
    pub end_expiry: Script,
    pub rebuild_begin: Script,
    pub rebuild_fill: Script,
    pub rebuild_finish: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            reserve: script(include_str!("scripts/reserve.lua")),
            undo_grant: script(include_str!("scripts/undo_grant.lua")),
            find: script(include_str!("scripts/find.lua")),
            stats: script(include_str!("scripts/stats.lua")),
            complete: script(include_str!("scripts/complete.lua")),
            retake: script(include_str!("scripts/retake.lua")),
            release: script(include_str!("scripts/release.lua")),
            set_sale: script(include_str!("scripts/set_sale.lua")),
            release_by_buyer: script(include_str!("scripts/release_by_buyer.lua")),
            begin_expiry: script(include_str!("scripts/begin_expiry.lua")),
            end_expiry: script(include_str!("scripts/end_expiry.lua")),
            rebuild_begin: script(include_str!("scripts/rebuild_begin.lua")),
            rebuild_fill: script(include_str!("scripts/rebuild_fill.lua")),
            rebuild_finish: script(include_str!("scripts/rebuild_finish.lua")),
        }
    }
}

fn script(text: &str) -> Script {
    Script::new(&format!("{}{text}", include_str!("scripts/shared.lua")))
}

/// Prepares a call of a script on one event.
pub(super) fn on_event<'a>(
    script: &'a Script,
    server: &RedisServer,
    event_id: EventId,
) -> ScriptInvocation<'a> {
    let mut invocation = script.prepare_invoke();
    for part in [
        "sale",
        "payment:waiting",
        "completed",
        "lapses",
        "lapsing",
        "rebuild",
    ] {
        invocation.key(key(server, event_id, part));
    }
    invocation
}

pub(super) fn key(server: &RedisServer, event_id: EventId, part: &str) -> String {
    server.key(format_args!("{{{event_id}}}:{part}"))
}

/// In Redis a claim is `ticket|expires|lapses|price|lapses`; the price is empty if the buyer names it, and the last part
/// counts. Programs of the previous version wrote `ticket|expires|lapses`: they read the third part, and their scripts
/// the last.
impl Claim {
    pub(super) fn encode(&self) -> String {
        let expires = self.deadlines.expires_at.as_millis();
        let lapses = self.deadlines.lapses_at.as_millis();
        let text = format!("{}|{expires}|{lapses}", self.ticket_id);
        match self.price {
            Some(price) => format!("{text}|{}|{lapses}", String::from(price)),
            None => text,
        }
    }

    /// `None` for a text that is no claim, such as the empty one.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('|').collect();
        let [ticket, expires, lapses, ref more @ ..] = parts[..] else {
            return None;
        };
        let (price, lapses) = match *more {
            [price, lapses] => (AgreedPrice::read(price), lapses),
            _ => (None, lapses),
        };
        let time = |text: &str| text.parse().ok().map(Timestamp::from_millis);
        Some(Self {
            ticket_id: ticket.parse().ok()?,
            deadlines: Deadlines {
                expires_at: time(expires)?,
                lapses_at: time(lapses)?,
            },
            price,
        })
    }
}

#[cfg(test)]
mod tests {
    use contract::Money;

    use super::*;

    #[test]
    fn a_claim_is_decoded_as_it_was_encoded_with_and_without_a_price() {
        let ticket_id = "0192f0c1-2f00-7abc-8def-0123456789ab".parse().unwrap();
        let [expires_at, lapses_at] = [5, 6].map(Timestamp::from_millis);
        let fifty = AgreedPrice::Of(Money::new(50).unwrap());
        for price in [None, Some(AgreedPrice::NamedByBuyer), Some(fifty)] {
            let claim = Claim {
                ticket_id,
                deadlines: Deadlines {
                    expires_at,
                    lapses_at,
                },
                price,
            };
            assert_eq!(Claim::decode(&claim.encode()), Some(claim));
        }
        // A script postponed the expiry: the last part counts.
        let postponed = Claim::decode(&format!("{ticket_id}|5|6|50|9")).unwrap();
        assert_eq!(postponed.deadlines.lapses_at, Timestamp::from_millis(9));
        assert_eq!(Claim::decode(""), None);
    }
}
