//! Saves and restores the data of Redis, as a start from an old snapshot does.

use ticketing::RedisSettings;

/// Everything under the prefix, as it is now.
pub async fn save(settings: &RedisSettings) -> Vec<(String, Vec<u8>)> {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut saved = Vec::new();
    let mut list = redis::cmd("KEYS");
    list.arg(format!("{}:*", settings.prefix));
    let keys: Vec<String> = list.query_async(&mut connection).await.unwrap();
    for key in keys {
        let mut dump = redis::cmd("DUMP");
        let value = dump.arg(&key).query_async(&mut connection).await.unwrap();
        saved.push((key, value));
    }
    saved
}

/// Puts back what was saved.
pub async fn restore(settings: &RedisSettings, saved: Vec<(String, Vec<u8>)>) {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, value) in saved {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(value).arg("REPLACE");
        let _: String = restore.query_async(&mut connection).await.unwrap();
    }
}
