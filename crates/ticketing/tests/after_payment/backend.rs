//! Reservations in memory.

use ticketing::Settings;

pub fn settings() -> Settings {
    Settings::default()
}
