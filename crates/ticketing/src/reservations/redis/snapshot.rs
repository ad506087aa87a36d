//! Reads all claims of some events from Redis, for audits. Reading is paged and blocks nobody; a claim that moves
//! meanwhile may appear twice or not at all.

use std::collections::{BTreeMap, BTreeSet};

use contract::{EventId, TicketId};
use messaging::StoreError;
use redis::Cmd;

use super::scripts::key;
use crate::{
    OpenError,
    redis_server::{RedisServer, RedisSettings},
    reservations::claim::Claim,
};

/// Claims of one page.
const PAGE_CLAIMS: usize = 1_000;

/// The claimed tickets of an event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ClaimSnapshot {
    pub waiting: BTreeSet<TicketId>,
    pub completed: BTreeSet<TicketId>,
}

impl ClaimSnapshot {
    /// The claims of each event that Redis knows; an event that is still to be rebuilt is left out.
    ///
    /// # Errors
    /// [`OpenError`] if the server does not answer.
    pub async fn read_all(
        settings: &RedisSettings,
        events: &[EventId],
    ) -> Result<BTreeMap<EventId, Self>, OpenError> {
        let server = RedisServer::connect(settings).await?;
        let mut all = BTreeMap::new();
        for event in events {
            let sale = key(&server, *event, "sale");
            let epoch: Option<String> = server.ask(&Cmd::hget(sale, "epoch")).await?;
            if epoch.is_some() {
                let claims = Self {
                    waiting: read(&server, &key(&server, *event, "payment:waiting")).await?,
                    completed: read(&server, &key(&server, *event, "completed")).await?,
                };
                all.insert(*event, claims);
            }
        }
        Ok(all)
    }
}

async fn read(server: &RedisServer, key: &str) -> Result<BTreeSet<TicketId>, StoreError> {
    let (mut tickets, mut cursor) = (BTreeSet::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(key).arg(cursor).arg("COUNT").arg(PAGE_CLAIMS);
        let (next, page): (u64, Vec<(String, String)>) = server.ask(&scan).await?;
        let claims = page.iter().filter_map(|(_, text)| Claim::decode(text));
        tickets.extend(claims.map(|claim| claim.ticket_id));
        cursor = next;
        if cursor == 0 {
            return Ok(tickets);
        }
    }
}
