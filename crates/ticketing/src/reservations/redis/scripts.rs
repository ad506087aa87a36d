//! The scripts, one for each operation, and the keys of an event. Every script has the same keys in the same order,
//! all with the event's hash tag: one event is one slot of a cluster, and one script is atomic.

use contract::{EventId, TicketId, Timestamp, UserId};
use redis::{Script, ScriptInvocation};

use crate::redis_server::RedisServer;

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

/// A claim as it is written: `ticket|expires|lapses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
    pub lapses_at: Timestamp,
}

impl Claim {
    pub fn write(&self) -> String {
        let (expires, lapses) = (self.expires_at.as_millis(), self.lapses_at.as_millis());
        format!("{}|{expires}|{lapses}", self.ticket_id)
    }

    /// `None` for what no script has written, such as the empty text.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let ticket_id = parts.next()?.parse().ok()?;
        let mut time = || Some(Timestamp::from_millis(parts.next()?.parse().ok()?));
        Some(Self {
            ticket_id,
            expires_at: time()?,
            lapses_at: time()?,
        })
    }
}

pub(super) fn read_user(text: &str) -> Option<UserId> {
    text.parse().ok()
}
