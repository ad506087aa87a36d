//! A place in the Redis server of the tests: keys that no other test uses.

use test_support::engines;
use ticketing::redis_server::RedisSettings;

pub fn settings() -> RedisSettings {
    RedisSettings {
        url: engines::redis_url().to_owned(),
        prefix: engines::unique_name("test"),
        ..RedisSettings::default()
    }
}

/// Deletes everything under the prefix at once, as a restart without data does.
pub async fn empty(settings: &RedisSettings) {
    engines::empty_redis(&settings.url, &settings.prefix).await;
}
