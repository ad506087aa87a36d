//! The store remembers which gateway its payments belong to.

use payment::{
    Settings,
    gateway_binding::{BindPolicy, Error, adopt, bind},
};
use toss::SecretKey;

use crate::support::{
    START, TestGateway, TestPaymentService, assert_pending, input_with, settings,
};

fn sandbox() -> Settings {
    Settings::default()
}

fn real(gateway: &TestGateway) -> Settings {
    Settings {
        sandbox: false,
        ..settings(gateway.address)
    }
}

#[tokio::test]
async fn of_processes_that_start_at_once_with_different_gateways_only_one_binds_the_store() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let (one, other) = (sandbox(), real(&gateway));
    let both = tokio::join!(
        bind(&app.store, &one, BindPolicy::Any, START),
        bind(&app.store, &other, BindPolicy::Any, START),
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
    bind(&app.store, &let_in, BindPolicy::ConfiguredOnly, START)
        .await
        .unwrap();
    let again = bind(&app.store, &refused, BindPolicy::Any, START).await;
    assert!(matches!(again, Err(Error::Another { .. })), "{again:?}");
}

#[tokio::test]
async fn a_store_with_open_payments_cannot_be_bound_to_another_kind_of_gateway() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let known = real(&gateway);
    bind(&app.store, &known, BindPolicy::Any, START)
        .await
        .unwrap();
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    let mut live = known.clone();
    live.gateway.secret_key = SecretKey::new("live_sk_1");
    for other in [&sandbox(), &live] {
        let refused = adopt(&app.store, other, START).await;
        assert!(
            matches!(refused, Err(Error::Open { open: 1, .. })),
            "{refused:?}"
        );
    }
    // At another address it is the same gateway.
    let mut moved = known.clone();
    moved.gateway.base_url = "http://gateway.example".to_owned();
    let before = adopt(&app.store, &moved, START).await.unwrap();
    assert_eq!(before, Some(known.gateway_identity()));
    bind(&app.store, &moved, BindPolicy::Any, START)
        .await
        .unwrap();
    adopt(&app.store, &known, START).await.unwrap();

    // When its outcome is known, nothing is open there any more.
    app.clock.advance_millis(120_000);
    assert_eq!(app.settle().await, 1);
    adopt(&app.store, &live, START).await.unwrap();
    let refused = bind(&app.store, &known, BindPolicy::Any, START).await;
    assert!(matches!(refused, Err(Error::Another { .. })), "{refused:?}");
}
