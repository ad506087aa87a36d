//! Two processes rebuild the same event: the one with the older epoch was paused, and writes nothing any more.

use redis::{Script, aio::MultiplexedConnection};
use ticketing::RedisSettings;

use crate::redis_place;

const TICKET: &str = "00000000-0000-7000-8000-000000000001";

/// An event that Redis does not know, and the scripts that rebuild it.
struct Event {
    settings: RedisSettings,
    connection: MultiplexedConnection,
}

impl Event {
    async fn new() -> Self {
        let settings = redis_place::settings();
        let client = redis::Client::open(settings.url.as_str()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        Self {
            settings,
            connection,
        }
    }

    async fn call(&mut self, script: &str, arguments: &[&str]) -> bool {
        let shared = include_str!("../../src/reservations/redis/scripts/shared.lua");
        let script = Script::new(&format!("{shared}{script}"));
        let mut call = script.prepare_invoke();
        for part in [
            "sale",
            "payment:waiting",
            "completed",
            "lapses",
            "lapsing",
            "rebuild",
        ] {
            call.key(format!("{}:{{1}}:{part}", self.settings.prefix));
        }
        for argument in arguments {
            call.arg(*argument);
        }
        let answer: i64 = call.invoke_async(&mut self.connection).await.unwrap();
        answer == 1
    }

    async fn begin(&mut self, epoch: &str) -> bool {
        let script = include_str!("../../src/reservations/redis/scripts/rebuild_begin.lua");
        self.call(script, &[epoch]).await
    }

    async fn fill(&mut self, epoch: &str, state: &str, user: &str) -> bool {
        let script = include_str!("../../src/reservations/redis/scripts/rebuild_fill.lua");
        let claim = format!("{TICKET}|1|2");
        self.call(script, &[epoch, state, user, &claim, "2"]).await
    }

    async fn finish(&mut self, epoch: &str) -> bool {
        let script = include_str!("../../src/reservations/redis/scripts/rebuild_finish.lua");
        self.call(script, &[epoch, "1", "10", "", "", "", ""]).await
    }

    /// `part` is `payment:waiting` or `completed`.
    async fn count(&mut self, part: &str) -> i64 {
        let mut count = redis::cmd("HLEN");
        count.arg(format!("{}:{{1}}:{part}", self.settings.prefix));
        count.query_async(&mut self.connection).await.unwrap()
    }
}

#[tokio::test]
async fn a_paused_rebuilder_writes_nothing_over_a_newer_epoch() {
    let mut event = Event::new().await;
    assert!(event.begin("5").await);
    assert!(event.fill("5", "completed", "1").await);
    assert!(event.begin("6").await, "the lease of the first ran out");
    assert_eq!(event.count("completed").await, 0, "it starts empty");

    assert!(!event.fill("5", "completed", "2").await);
    assert!(!event.finish("5").await);
    assert!(!event.begin("5").await);
    assert!(event.fill("6", "completed", "3").await);
    assert!(event.finish("6").await);
    assert_eq!(event.count("completed").await, 1);

    for epoch in ["5", "6"] {
        assert!(!event.begin(epoch).await);
        assert!(!event.fill(epoch, "waiting", "4").await);
        assert!(!event.finish(epoch).await);
    }
    assert_eq!(event.count("payment:waiting").await, 0);
}

#[tokio::test]
async fn a_rebuild_whose_data_is_lost_is_not_finished() {
    let mut event = Event::new().await;
    assert!(event.begin("5").await);
    assert!(event.fill("5", "completed", "1").await);
    redis_place::empty(&event.settings).await;
    assert!(!event.fill("5", "completed", "2").await);
    assert!(!event.finish("5").await);
}

#[tokio::test]
async fn a_user_with_a_completed_claim_gets_no_waiting_claim() {
    let mut event = Event::new().await;
    assert!(event.begin("5").await);
    assert!(event.fill("5", "completed", "1").await);
    assert!(event.fill("5", "waiting", "1").await);
    assert!(event.fill("5", "waiting", "2").await);
    assert!(event.finish("5").await);
    let counts = (
        event.count("completed").await,
        event.count("payment:waiting").await,
    );
    assert_eq!(counts, (1, 1));
}
