//! The scripts, one for each operation, and the keys of an event. Every script has the same keys in the same order,
//! all with the event's hash tag: one event is one slot of a cluster, and one script is atomic.

use contract::{EventId, TicketId, Timestamp, UserId};
use redis::{Script, ScriptInvocation};

use crate::{model::AgreedPrice, redis_server::RedisServer};

pub(super) struct Scripts {
    pub reserve: Script,
    pub take_back: Script,
    pub find: Script,
    pub stats: Script,
    pub complete: Script,
    pub retake: Script,
    pub release: Script,
    pub set_sale: Script,
    pub give_up: Script,
    pub lapse: Script,
    pub lapsed: Script,
    pub rebuild_begin: Script,
    pub rebuild_fill: Script,
    pub rebuild_finish: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            reserve: script(include_str!("scripts/reserve.lua")),
            take_back: script(include_str!("scripts/take_back.lua")),
            find: script(include_str!("scripts/find.lua")),
            stats: script(include_str!("scripts/stats.lua")),
            complete: script(include_str!("scripts/complete.lua")),
            retake: script(include_str!("scripts/retake.lua")),
            release: script(include_str!("scripts/release.lua")),
            set_sale: script(include_str!("scripts/set_sale.lua")),
            give_up: script(include_str!("scripts/give_up.lua")),
            lapse: script(include_str!("scripts/lapse.lua")),
            lapsed: script(include_str!("scripts/lapsed.lua")),
            rebuild_begin: script(include_str!("scripts/rebuild_begin.lua")),
            rebuild_fill: script(include_str!("scripts/rebuild_fill.lua")),
            rebuild_finish: script(include_str!("scripts/rebuild_finish.lua")),
        }
    }
}

fn script(text: &str) -> Script {
    Script::new(&format!("{}{text}", include_str!("scripts/shared.lua")))
}

/// A script on one event.
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

/// A claim as it is written: `ticket|expires|lapses|price|lapses`, the price empty where the buyer names it. The last part
/// counts. The one in the middle is for the program of the version before, which wrote `ticket|expires|lapses`: it reads
/// the third part, and its scripts the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
    pub lapses_at: Timestamp,
    /// `None` where none was agreed: the price of the sale counts.
    pub price: Option<AgreedPrice>,
}

impl Claim {
    pub fn write(&self) -> String {
        let (expires, lapses) = (self.expires_at.as_millis(), self.lapses_at.as_millis());
        let text = format!("{}|{expires}|{lapses}", self.ticket_id);
        match self.price {
            Some(price) => format!("{text}|{}|{lapses}", String::from(price)),
            None => text,
        }
    }

    /// `None` for what no script has written, such as the empty text.
    pub fn read(text: &str) -> Option<Self> {
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
            expires_at: time(expires)?,
            lapses_at: time(lapses)?,
            price,
        })
    }
}

pub(super) fn read_user(text: &str) -> Option<UserId> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use contract::Money;

    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written_with_and_without_a_price() {
        let ticket_id = "0192f0c1-2f00-7abc-8def-0123456789ab".parse().unwrap();
        let [expires_at, lapses_at] = [5, 6].map(Timestamp::from_millis);
        let fifty = AgreedPrice::Of(Money::new(50).unwrap());
        for price in [None, Some(AgreedPrice::NamedByBuyer), Some(fifty)] {
            let claim = Claim {
                ticket_id,
                expires_at,
                lapses_at,
                price,
            };
            assert_eq!(Claim::read(&claim.write()), Some(claim));
        }
        // A script moved the lapse: the last part counts.
        let moved = Claim::read(&format!("{ticket_id}|5|6|50|9")).unwrap();
        assert_eq!(moved.lapses_at, Timestamp::from_millis(9));
        assert_eq!(Claim::read(""), None);
    }
}
