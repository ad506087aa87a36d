//! A crowd buys: in peace, and while things go away.

use futures::{StreamExt, stream};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    buyer::{Buyer, Kind, Outcome, client, put_on_sale},
    deployment::{Deployment, PATIENCE},
    rest,
};

const BUYERS_AT_ONCE: usize = 16;
/// The engines are everybody's, and some take them down.
static TURN: Mutex<()> = Mutex::const_new(());

async fn crowd(
    deployment: &Deployment,
    name: &str,
    wishes: impl IntoIterator<Item = (Kind, i64)>,
) -> Vec<Outcome> {
    let until = Instant::now() + PATIENCE;
    let client = client();
    let buyers = wishes.into_iter().enumerate();
    let buyers = buyers.map(|(number, (kind, event))| Buyer {
        deployment,
        client: client.clone(),
        name: format!("{name}b{number}"),
        kind,
        event,
        until,
    });
    let acting = stream::iter(buyers).map(|buyer| async move { buyer.act().await });
    acting.buffer_unordered(BUYERS_AT_ONCE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_has_a_ticket_and_all_books_agree() {
    let _turn = TURN.lock().await;
    // Given two processes of each service, and tickets for everybody,
    let deployment = Deployment::open().await;
    let event = put_on_sale(&deployment, "show", 100).await;
    // when sixty buy, each at any of the processes,
    let wishes = std::iter::repeat_n((Kind::Pays, event), 60);
    let outcomes = crowd(&deployment, "peace", wishes).await;
    // then each of them has a ticket, and nothing is left over anywhere.
    let owning = outcomes.iter().filter(|it| matches!(it, Outcome::Owns(_)));
    assert_eq!(owning.count(), 60, "{outcomes:?}");
    let books = rest::come_to_rest(&deployment).await;
    assert_eq!(books.tickets.len(), 60);
    rest::hold(&deployment, &[event], &outcomes, &books).await;
}
