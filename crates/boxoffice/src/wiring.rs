//! Starts the services of a process by its settings: each with its consumers, its periodic tasks and its routes. State: none.

use std::net::Ipv4Addr;

use anyhow::Context;
use messaging::{Record, Runner, dead_letters::DeadLetterRecord, housekeeping::RowRetention};
use payment::record::{ReconciliationRecord, WebhookRecord};
use prometheus_client::registry::Registry;
use toss_sandbox::SandboxSettings;
use utoipa_axum::router::OpenApiRouter;
use web::idempotency::AnswerRecord;

use crate::{config::Config, sandbox, server::reachable, services::Service};

/// The built-in sandbox retries webhooks after seconds, not minutes.
const SANDBOX_WEBHOOK_SPEED: u32 = 60;

/// Starts the services of this process with their consumers and periodic tasks, and returns their routes.
pub async fn start_services(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<(OpenApiRouter, Option<payment::Service>)> {
    let context = runner.context().clone();
    let has = |service| config.services.has(service);
    let mut routes = OpenApiRouter::new();
    if has(Service::Event) {
        let event = event::Service::new(context.store.clone(), context.clock.clone());
        routes = routes.merge(event::http::router(event));
    }
    if has(Service::User) {
        let (store, clock) = (context.store.clone(), context.clock.clone());
        let user = user::Service::new(store, clock, config.user.clone());
        runner.consumer(user::consumers::UserConsumer::new(&user));
        routes = routes.merge(user::http::router(user));
    }
    let mut payment = None;
    if config.services.has_payment() {
        let service = start_payment(config, runner, registry).await?;
        if has(Service::PaymentApi) {
            routes = routes.merge(payment::http::router(service.clone()));
        }
        payment = Some(service);
    }
    if has(Service::TicketingApi) || has(Service::TicketingWorker) {
        let service = start_ticketing(config, runner, registry).await?;
        if has(Service::TicketingApi) {
            routes = routes.merge(ticketing::http::router(service));
        }
    }
    Ok((routes, payment))
}

async fn start_ticketing(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<ticketing::Service> {
    let context = runner.context().clone();
    let ticketing = ticketing::Service::open(
        context.store,
        context.clock,
        context.random,
        config.ticketing.clone(),
        ticketing::Metrics::register(registry),
    )
    .await?;
    if config.services.has(Service::TicketingWorker) {
        runner.consumer(ticketing::consumers::SagaConsumer(ticketing.clone()));
        runner.consumer(ticketing::consumers::StockConsumer(ticketing.clone()));
        let expiry = ticketing::expiry::ExpiryTask::new(ticketing.clone());
        runner.periodic(expiry);
    }
    Ok(ticketing)
}

async fn start_payment(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<payment::Service> {
    let mut settings = config.payment.clone();
    if settings.sandbox {
        let secret_key = toss::SecretKey::new(sandbox::SECRET);
        settings.gateway.base_url = start_sandbox(config, secret_key.clone(), runner).await?;
        settings.gateway.secret_key = secret_key;
    }
    let context = runner.context().clone();
    let service = payment::Service::new(
        context.store,
        context.clock,
        context.random,
        settings,
        payment::Metrics::register(registry),
    )
    .context("cannot use the settings of payment.gateway")?;
    if config.services.has(Service::PaymentWorker) {
        runner.consumer(payment::PaymentConsumer::new(service.clone()));
        let settling = service.clone();
        runner.leader("payment.settler", move |fence, shutdown| {
            payment::Settler::new(settling.fenced_by(fence)).run(shutdown)
        });
        let reconciling = service.clone();
        runner.leader("payment.reconciler", move |fence, shutdown| {
            payment::Reconciler::new(reconciling.fenced_by(fence)).run(shutdown)
        });
    }
    Ok(service)
}

/// Starts the gateway's sandbox on a free port of the loopback interface, and returns its URL.
async fn start_sandbox(
    config: &Config,
    secret_key: toss::SecretKey,
    runner: &mut Runner,
) -> anyhow::Result<String> {
    let settings = SandboxSettings {
        webhook_url: config.payment.sandbox_webhooks.then(|| {
            let address = reachable(config.listen);
            format!("http://{address}/payment/webhook/toss")
        }),
        webhook_speed: SANDBOX_WEBHOOK_SPEED,
        ..SandboxSettings::new(secret_key)
    };
    let sandbox = sandbox::open(&config.data, settings)?;
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let mut shutdown = runner.shutdown();
    let stopped = async move { shutdown.requested().await };
    let (address, served) = sandbox.serve(listen, stopped).await?;
    tracing::warn!(
        "payments go to the built-in sandbox: no money is taken, and it accepts any payment key; set payment.sandbox = false to sell"
    );
    runner.task("payment.sandbox", |_| async {
        // The sandbox logs why it ends.
        let _ = served.await;
    });
    Ok(format!("http://{address}"))
}

/// The rows that housekeeping deletes after their retention.
pub fn retentions(config: &Config) -> Vec<RowRetention> {
    vec![
        RowRetention {
            table: AnswerRecord::TABLE,
            column: "created_at",
            only: None,
            keep_secs: config.http.idempotency_retention_secs,
        },
        RowRetention {
            table: WebhookRecord::TABLE,
            column: "updated_at",
            only: Some("state <> 'RECEIVED'"),
            keep_secs: config.payment.webhook_retention_secs,
        },
        RowRetention {
            table: ReconciliationRecord::TABLE,
            column: "finished_at",
            only: None,
            keep_secs: config.payment.reconciliation_retention_secs,
        },
        RowRetention {
            table: DeadLetterRecord::TABLE,
            column: "updated_at",
            only: Some("state IN ('RESOLVED', 'DISCARDED')"),
            keep_secs: config.messaging.dead_letter_retention_secs,
        },
    ]
}
