//! Runs a scenario: phase after phase on one folder, with kills only within phases. When every buyer is done and nothing
//! is pending, the books are compared.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use messaging::Clock;
use test_support::{api::ApiRequest, eventually};
use toss_sandbox::FaultScript;

use crate::{
    buyer::ScenarioBuyer,
    fault_profile::DELAY_MILLIS_MAX,
    idle, operator, promises,
    scenario::{EVENTS, KillMoment, Phase, Scenario},
    service::{POLLING, RestartableService},
};

const BUYERS_AT_ONCE: usize = 48;

/// Runs a scenario to its end, where every invariant must hold; returns the number of purchases.
pub async fn run_scenario(name: &str, scenario: &Scenario) -> usize {
    let began_at = Instant::now();
    let service = RestartableService::new_folder().await;
    service.start().await;
    let events = put_on_sale(&service).await;
    for phase in &scenario.phases {
        run_phase(&service, phase, &events).await;
    }
    let played_for = began_at.elapsed();
    service.gateway.play(FaultScript::default());
    // Every delayed call of the gateway is finished by then, also if its client has hung up.
    let slowest = Clock::System.now().plus_millis(DELAY_MILLIS_MAX);
    Clock::System.wait_until(slowest).await;
    let rested = idle::wait_until_idle(&service).await;
    let parked = operator::settle_what_is_parked(&service, &rested).await;
    let all = idle::wait_until_idle(&service).await;
    promises::hold(&service, &all).await;
    operator::reconcile(&service).await;
    promises::hold(&service, &idle::wait_until_idle(&service).await).await;
    service.stop().await;
    let books = service.gateway.books();
    let purchases = all.books.purchases.len();
    eprintln!(
        "{name}: {purchases} purchases, {} tickets, {} of {} payment keys with faults, {} kills, {parked} refunds settled by a person, {books:?}; \
         ran for {played_for:?}, ended after {:?}",
        all.books.tickets.len(),
        scenario.keys_with_faults().len(),
        scenario.keys().len(),
        scenario
            .phases
            .iter()
            .map(|phase| phase.kills.len())
            .sum::<usize>(),
        began_at.elapsed(),
    );
    purchases
}

async fn put_on_sale(service: &RestartableService) -> Vec<i64> {
    let mut events = Vec::new();
    for (price, quantity) in EVENTS {
        let request =
            ApiRequest::register_event("Show", quantity, price).with_key(format!("show-{price}"));
        let event = service.send(&request).await.body["id"].as_i64().unwrap();
        on_sale(service, event).await;
        events.push(event);
    }
    events
}

async fn on_sale(service: &RestartableService, event: i64) {
    eventually(POLLING, "the event is on sale", async || {
        let stock = service.get(&format!("/ticketing/event/{event}")).await;
        if stock.body["available"].is_i64() {
            Ok(())
        } else {
            Err(stock.body)
        }
    })
    .await;
}

async fn run_phase(service: &RestartableService, phase: &Phase, events: &[i64]) {
    service.gateway.play(phase.script.clone());
    let from = service.calls.answers();
    let is_over = AtomicBool::new(false);
    let buying = async {
        let buyers = phase
            .specs
            .iter()
            .map(|spec| ScenarioBuyer::new(service, spec, events));
        let buyers: Vec<_> = buyers.collect();
        let acting = stream::iter(&buyers).map(ScenarioBuyer::act);
        acting.buffer_unordered(BUYERS_AT_ONCE).count().await;
        is_over.store(true, Ordering::Relaxed);
    };
    let killer = async {
        for moment in &phase.kills {
            reach(service, *moment, from, &is_over).await;
            service.kill().await;
        }
    };
    tokio::join!(buying, killer);
}

/// Waits for a kill's moment, or the end of the phase.
async fn reach(
    service: &RestartableService,
    moment: KillMoment,
    from: usize,
    is_over: &AtomicBool,
) {
    let mut poll = tokio::time::interval(Duration::from_millis(1));
    while service.calls.answers() < from + moment.answers && !is_over.load(Ordering::Relaxed) {
        poll.tick().await;
    }
    // This sleep is the random moment.
    tokio::time::sleep(moment.then).await;
}
