//! Reservations on Redis.

use ticketing::{ReservationsBackend, Settings};

use crate::redis_place;

pub fn settings() -> Settings {
    Settings {
        reservations: ReservationsBackend::Redis,
        redis: redis_place::settings(),
        ..Settings::default()
    }
}
