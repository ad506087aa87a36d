//! Reservations on Redis.

use ticketing::{ReservationsBackend, Settings};

use crate::redis_place;

pub const CLAIMS_ARE_ROWS: bool = false;

pub fn settings() -> Settings {
    Settings {
        reservations: ReservationsBackend::Redis,
        redis: redis_place::settings(),
        ..Settings::default()
    }
}

/// Redis comes back without its data.
pub async fn lose(settings: &Settings) {
    redis_place::empty(&settings.redis).await;
}
