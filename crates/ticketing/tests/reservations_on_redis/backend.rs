//! Reservations in Redis.

use contract::Timestamp;
use messaging::{Clock, Store};
use ticketing::{RedisSettings, Reservations, redis_server::RedisServer, reservations::RedisHold};

use crate::redis_place;

pub const CLAIMS_ARE_ROWS: bool = false;
const GRACE_MILLIS: i64 = 500;

pub struct Backend {
    pub settings: RedisSettings,
    pub clock: Clock,
    hold: RedisHold,
}

impl Backend {
    pub fn new(claim_millis_min: i64) -> Self {
        Self::at(redis_place::settings(), claim_millis_min)
    }

    pub fn at(settings: RedisSettings, claim_millis_min: i64) -> Self {
        Self {
            settings,
            clock: Clock::manual(Timestamp::from_millis(1_700_000_000_000)),
            hold: RedisHold {
                claim_millis_min,
                grace_millis: GRACE_MILLIS,
            },
        }
    }

    pub async fn open(&self, store: Store) -> Reservations {
        let server = RedisServer::connect(&self.settings).await.unwrap();
        Reservations::on_redis(server, store, self.clock.clone(), self.hold)
    }
}
