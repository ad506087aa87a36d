//! The store remembers which gateway its payments belong to.

use payment::{
    Settings,
    gateway_binding::{BindPolicy, Error, adopt, bind},
};
use toss::SecretKey;

use crate::world::{Peer, START, World, assert_pending, input_with, settings};

fn sandbox() -> Settings {
    Settings::default()
}

fn real(peer: &Peer) -> Settings {
    Settings {
        sandbox: false,
        ..settings(peer.address)
    }
}

#[tokio::test]
async fn of_processes_that_start_at_once_with_different_gateways_one_is_let_in() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let world = World::open(folder.path(), settings(peer.address));
    let (one, other) = (sandbox(), real(&peer));
    let both = tokio::join!(
        bind(&world.store, &one, BindPolicy::Any, START),
        bind(&world.store, &other, BindPolicy::Any, START),
    );
    assert!(
        matches!(
            both,
            (Ok(()), Err(Error::Another { .. })) | (Err(Error::Another { .. }), Ok(()))
        ),
        "{both:?}"
    );
    // It stays so.
    let (let_in, refused) = if both.0.is_ok() {
        (one, other)
    } else {
        (other, one)
    };
    bind(&world.store, &let_in, BindPolicy::ConfiguredOnly, START)
        .await
        .unwrap();
    let again = bind(&world.store, &refused, BindPolicy::Any, START).await;
    assert!(matches!(again, Err(Error::Another { .. })), "{again:?}");
}

#[tokio::test]
async fn what_is_open_at_a_gateway_of_another_kind_keeps_its_payments_there() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let known = real(&peer);
    bind(&world.store, &known, BindPolicy::Any, START)
        .await
        .unwrap();
    let id = world.open_payment(1).await;
    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );

    let mut live = known.clone();
    live.gateway.secret_key = SecretKey::new("live_sk_1");
    for other in [&sandbox(), &live] {
        let refused = adopt(&world.store, other, START).await;
        assert!(
            matches!(refused, Err(Error::Open { open: 1, .. })),
            "{refused:?}"
        );
    }
    // At another address it is the same gateway.
    let mut moved = known.clone();
    moved.gateway.base_url = "http://gateway.example".to_owned();
    let before = adopt(&world.store, &moved, START).await.unwrap();
    assert_eq!(before, Some(known.gateway_identity()));
    bind(&world.store, &moved, BindPolicy::Any, START)
        .await
        .unwrap();
    adopt(&world.store, &known, START).await.unwrap();

    // When its outcome is known, nothing is open there any more.
    world.clock.advance_millis(120_000);
    assert_eq!(world.settle().await, 1);
    adopt(&world.store, &live, START).await.unwrap();
    let refused = bind(&world.store, &known, BindPolicy::Any, START).await;
    assert!(matches!(refused, Err(Error::Another { .. })), "{refused:?}");
}
