//! The story: act after act on one folder, with kills only within them; then everybody is done, everything comes to
//! rest, and the books are compared.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use messaging::Clock;
use payment::sandbox::Script;
use serde_json::json;

use crate::{
    buyer::Buyer,
    house::{House, LOOK, PATIENCE},
    ledger::Ask,
    operator,
    plan::{Act, Moment, Plan, SHOWS},
    promises, rest,
    weather::DELAY_MILLIS_MAX,
};

const BUYERS_AT_ONCE: usize = 48;

/// Tells a story to its end, where every promise must hold; returns how many purchases it came to.
pub async fn tell(name: &str, plan: &Plan) -> usize {
    let began_at = Instant::now();
    let house = House::build().await;
    house.open_doors().await;
    let events = put_on_sale(&house).await;
    for act in &plan.acts {
        play(&house, act, &events).await;
    }
    let played_for = began_at.elapsed();
    house.gateway.play(Script::default());
    // What the gateway has taken its time for is done by then, whoever has hung up.
    let slowest = Clock::System.now().plus_millis(DELAY_MILLIS_MAX);
    Clock::System.wait_until(slowest).await;
    let rested = rest::come_to_rest(&house).await;
    let parked = operator::settle_what_is_parked(&house, &rested).await;
    let all = rest::come_to_rest(&house).await;
    promises::hold(&house, &all).await;
    operator::reconcile(&house).await;
    promises::hold(&house, &rest::come_to_rest(&house).await).await;
    house.stop().await;
    let books = house.gateway.books();
    let purchases = all.books.purchases.len();
    eprintln!(
        "{name}: {purchases} purchases, {} tickets, {} of {} payment keys struck, {} kills, {parked} refunds that a person settled, {books:?}; \
         played for {played_for:?}, ended after {:?}",
        all.books.tickets.len(),
        plan.struck().len(),
        plan.keys().len(),
        plan.acts.iter().map(|act| act.kills.len()).sum::<usize>(),
        began_at.elapsed(),
    );
    purchases
}

async fn put_on_sale(house: &House) -> Vec<i64> {
    let mut events = Vec::new();
    for (price, quantity) in SHOWS {
        let show = json!({ "name": "Show", "ticketQuantity": quantity, "price": price });
        let ask = Ask::post("/event", format!("show-{price}"), show);
        let event = house.ask(&ask).await.body["id"].as_i64().unwrap();
        on_sale(house, event).await;
        events.push(event);
    }
    events
}

async fn on_sale(house: &House, event: i64) {
    let mut look = tokio::time::interval(LOOK);
    let on_sale = async {
        loop {
            look.tick().await;
            let stock = house.get(&format!("/ticketing/event/{event}")).await;
            if stock.body["available"].is_i64() {
                return;
            }
        }
    };
    let on_sale = tokio::time::timeout(PATIENCE, on_sale).await;
    on_sale.expect("the show never came on sale");
}

async fn play(house: &House, act: &Act, events: &[i64]) {
    house.gateway.play(act.script.clone());
    let from = house.ledger.answers();
    let is_over = AtomicBool::new(false);
    let crowd = async {
        let buyers = act.parts.iter().map(|part| Buyer {
            house,
            part,
            events,
        });
        let buyers: Vec<_> = buyers.collect();
        let acting = stream::iter(&buyers).map(Buyer::act);
        acting.buffer_unordered(BUYERS_AT_ONCE).count().await;
        is_over.store(true, Ordering::Relaxed);
    };
    let killer = async {
        for moment in &act.kills {
            reach(house, *moment, from, &is_over).await;
            house.kill().await;
        }
    };
    tokio::join!(crowd, killer);
}

/// Waits for a moment, or the end of the act.
async fn reach(house: &House, moment: Moment, from: usize, is_over: &AtomicBool) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    while house.ledger.answers() < from + moment.answers && !is_over.load(Ordering::Relaxed) {
        look.tick().await;
    }
    // This is the random moment itself.
    tokio::time::sleep(moment.then).await;
}
