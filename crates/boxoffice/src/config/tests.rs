//! The layers of the settings, and the errors about unknown and invalid settings.

use super::*;

#[test]
fn the_error_about_a_file_that_is_not_toml_does_not_quote_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boxoffice.toml");
    let text = "[store.postgres]\nurl = \"postgres://u:secret@h/d\" and more\n";
    std::fs::write(&path, text).unwrap();
    let flags = Flags::default();
    let error = Config::load(Some(&path), [], &flags).err().unwrap();
    let told = format!("{error:#}");
    assert!(
        told.contains("boxoffice.toml") && told.contains("line 2"),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
}

fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> anyhow::Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings");
    std::fs::write(&path, file).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), environment, flags)
}

/// The error with all its causes in one line.
fn refusal(file: &str, environment: &[(&str, &str)]) -> String {
    let error = load(file, environment, &Flags::default()).unwrap_err();
    format!("{error:#}")
}

#[test]
fn the_commented_defaults_are_the_defaults() {
    let config = Config::load(None, [], &Flags::default()).unwrap();
    assert_eq!(
        config.messaging.dead_letters(),
        DeadLetterSettings::default()
    );
    assert_eq!(config.user, user::Settings::default());
    assert_eq!(config.ticketing, ticketing::Settings::default());
    #[cfg(feature = "kafka")]
    assert_eq!(
        config.bus.kafka,
        messaging::KafkaSettings {
            source: "/boxoffice".to_owned(),
            ..messaging::KafkaSettings::default()
        }
    );
    let payment = payment::Settings::default();
    assert_eq!(format!("{:?}", config.payment), format!("{payment:?}"));
}

#[test]
fn the_defaults_of_the_process_are_the_documented_ones() {
    let config = Config::load(None, [], &Flags::default()).unwrap();
    let http = HttpSettings {
        hosts: String::new(),
        in_flight_max: 4096,
        request_timeout_millis: 60_000,
        shutdown_timeout_millis: 30_000,
        idempotency_retention_secs: 86_400,
        bench_route: false,
    };
    assert_eq!(config.http, http);
    let log = LogSettings {
        format: LogFormat::Text,
        level: "info".to_owned(),
    };
    assert_eq!(config.log, log);
    assert_eq!(config.messaging.inbox_retention_secs, None);
    assert_eq!(config.messaging.dead_letter_retention_secs, 604_800);
}

#[test]
fn each_layer_overrides_the_one_before() {
    let file = "listen = '127.0.0.1:2'\ndata = 'file'\n[http]\nin_flight_max = 2";
    let environment = [
        ("BOXOFFICE_LISTEN", "127.0.0.1:3"),
        ("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "3"),
    ];
    let flags = Flags {
        data: None,
        listen: Some(([127, 0, 0, 1], 4).into()),
        services: None,
    };
    let ports = |config: Config| (config.listen.port(), config.http.in_flight_max, config.data);

    let none = Flags::default();
    assert_eq!(
        ports(load("", &[], &none).unwrap()),
        (8080, 4096, "data".into())
    );
    assert_eq!(
        ports(load(file, &[], &none).unwrap()),
        (2, 2, "file".into())
    );
    assert_eq!(
        ports(load(file, &environment, &none).unwrap()),
        (3, 3, "file".into())
    );
    assert_eq!(
        ports(load(file, &environment, &flags).unwrap()),
        (4, 3, "file".into())
    );
}

#[test]
fn every_section_can_be_set_from_the_environment() {
    let environment = [
        ("BOXOFFICE_CONFIG", "names the file, and is no setting"),
        (
            "BOXOFFICE_TEST_REDIS_URL",
            "is for tests, and is no setting",
        ),
        ("BOXOFFICE_DATA", "1234"),
        ("BOXOFFICE_LOG__FORMAT", "json"),
        ("BOXOFFICE_HTTP__BENCH_ROUTE", "true"),
        ("BOXOFFICE_MESSAGING__INBOX_RETENTION_SECS", "7"),
        ("BOXOFFICE_USER__FRAUD__AMOUNT_MAX", "5000"),
        ("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "1234"),
        ("BOXOFFICE_TICKETING__HOLD_TTL_SECS", "60"),
        ("PATH", "/bin"),
    ];
    let config = load("", &environment, &Flags::default()).unwrap();
    assert_eq!(config.data, Path::new("1234"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.http.bench_route);
    assert_eq!(config.inbox_retention_secs(), 7);
    assert_eq!(
        config.user.fraud.amount_max.map(contract::Money::get),
        Some(5000)
    );
    assert_eq!(
        config.payment.gateway.secret_key,
        toss::SecretKey::new("1234")
    );
    assert_eq!(config.ticketing.hold_ttl_secs, 60);
}

#[test]
fn the_error_about_an_unknown_setting_names_it() {
    for (file, name) in [
        ("colour = 'red'", "colour"),
        ("[http]\ncolour = 'red'", "colour"),
        ("[colour]\nred = 1", "colour"),
        ("[user.fraud]\ncolour = 1", "colour"),
        ("[payment.gateway]\ncolour = 1", "colour"),
        ("[ticketing]\nhold_ttl_sec = 1", "hold_ttl_sec"),
    ] {
        let text = refusal(file, &[]);
        assert!(text.contains(name), "{file:?}: {text}");
    }
    let text = refusal("", &[("BOXOFFICE_HTTP__COLOUR", "red")]);
    assert!(text.contains("colour"), "{text}");
    let text = refusal("", &[("BOXOFFICE_LISTENS", "x")]);
    assert!(text.contains("listens"), "{text}");
}

#[test]
fn the_error_about_an_invalid_value_names_its_setting() {
    for (file, name) in [
        ("listen = 'nowhere'", "listen"),
        ("listen = 8080", "listen"),
        ("[http]\nin_flight_max = 'many'", "http.in_flight_max"),
        ("[http]\nin_flight_max = -1", "http.in_flight_max"),
        ("[http]\nin_flight_max = 0", "http.in_flight_max"),
        (
            "[http]\nhosts = 'a.example, https://b.example'",
            "http.hosts",
        ),
        (
            "[http]\nrequest_timeout_millis = 10000",
            "http.request_timeout_millis",
        ),
        ("[log]\nformat = 'xml'", "log.format"),
        ("[log]\nlevel = 'a=b=c'", "log.level"),
        (
            "[messaging]\ninbox_retention_secs = -5",
            "messaging.inbox_retention_secs",
        ),
        ("[payment]\nsandbox = 'perhaps'", "payment.sandbox"),
        (
            "[payment]\nrefund_give_up_secs = 0",
            "payment.refund_give_up_secs",
        ),
        ("[ticketing]\nhold_ttl_secs = 0", "ticketing.hold_ttl_secs"),
        (
            "[ticketing]\nhold_grace_secs = 10",
            "ticketing.hold_grace_secs",
        ),
        (
            "[ticketing]\nreservations = 'elsewhere'",
            "ticketing.reservations",
        ),
        ("[ticketing]\nreservations = 'redis'", "ticketing.redis.url"),
        (
            "[ticketing]\nreservations = 'redis'\n[ticketing.redis]\nurl = 'http://x'",
            "ticketing.redis.url",
        ),
        (
            "[user.fraud]\npurchases_max = 300",
            "user.fraud.purchases_max",
        ),
        ("[user.fraud]\namount_max = -1", "user.fraud.amount_max"),
    ] {
        let text = refusal(file, &[]);
        assert!(text.contains(name), "{file:?}: {text}");
    }
    let text = refusal("", &[("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "many")]);
    assert!(text.contains("http.in_flight_max"), "{text}");
    let text = refusal("nonsense", &[]);
    assert!(text.contains("settings"), "{text}");
}

#[test]
fn a_live_key_and_the_sandbox_cannot_be_set_together() {
    let live = "secret_key = 'live_sk_20261122'";
    for (file, names) in [
        (
            format!("[payment.gateway]\n{live}"),
            ["payment.sandbox", "payment.gateway.secret_key"],
        ),
        (
            format!(
                "[payment]\nsandbox = false\nforward_test_codes = true\n[payment.gateway]\n{live}"
            ),
            ["payment.forward_test_codes", "payment.gateway.secret_key"],
        ),
        (
            "[payment]\nsandbox = false\nforward_test_codes = true".to_owned(),
            ["payment.forward_test_codes", "payment.gateway.secret_key"],
        ),
        (
            format!(
                "[payment]\nsandbox = false\n[payment.gateway]\n{live}\nbase_url = 'http://127.0.0.1:9090'"
            ),
            ["payment.gateway.base_url", "payment.gateway.secret_key"],
        ),
        (
            "[payment]\nsandbox = false\nsandbox_webhooks = true".to_owned(),
            ["payment.sandbox_webhooks", "payment.sandbox"],
        ),
    ] {
        let text = refusal(&file, &[]);
        assert!(
            names.iter().all(|name| text.contains(name)),
            "{file}: {text}"
        );
        assert!(!text.contains("20261122"), "{text}");
    }
    for file in [
        format!("[payment]\nsandbox = false\n[payment.gateway]\n{live}"),
        "[payment]\nforward_test_codes = true\nsandbox_webhooks = true".to_owned(),
        "[payment]\nsandbox = false\nforward_test_codes = true\n[payment.gateway]\nsecret_key = 'test_sk_1'".to_owned(),
    ] {
        load(&file, &[], &Flags::default()).unwrap();
    }
}

#[test]
fn a_secret_is_never_printed() {
    let secrets = [
        ("BOXOFFICE_PAYMENT__SANDBOX", "false"),
        ("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "live_sk_1234"),
        ("BOXOFFICE_TICKETING__RESERVATIONS", "redis"),
        (
            "BOXOFFICE_TICKETING__REDIS__URL",
            "redis://:live_sk_1234@h:1",
        ),
        ("BOXOFFICE_TICKETING__REDIS__PASSWORD", "live_sk_1234"),
    ];
    let config = load("", &secrets, &Flags::default()).unwrap();
    assert!(!format!("{config:?}").contains("live_sk_1234"));
}

/// The settings that Kafka requires, except its own.
#[cfg(feature = "kafka")]
const OVER_KAFKA: &str = "[store]\nbackend = 'postgres'\n[store.postgres]\nurl = 'postgres://h/d'\n\
    [ticketing]\nreservations = 'redis'\n[ticketing.redis]\nurl = 'redis://h'\n[bus]\nbackend = 'kafka'\n";

#[cfg(feature = "kafka")]
#[test]
fn kafka_needs_its_brokers_and_no_other_setting_of_its_own() {
    let file = format!("{OVER_KAFKA}[bus.kafka]\nbrokers = 'h:9092'\n");
    let config = load(&file, &[], &Flags::default()).unwrap();
    assert_eq!(config.inbox_retention_secs(), 108_600);
    for begin in ["latest", "earliest", "2026-11-22T10:00:00Z"] {
        let file = format!("{file}initial_offset = '{begin}'");
        let config = load(&file, &[], &Flags::default()).unwrap();
        assert!(config.bus.kafka.initial_offset.is_some());
    }
    // The inbox's retention follows the topics' retention.
    let config = load(&(file + "retention_secs = 3600"), &[], &Flags::default()).unwrap();
    assert_eq!(config.cleaning().inbox_retention_secs, 5_100);
}

#[cfg(feature = "kafka")]
#[test]
fn the_error_about_a_setting_that_kafka_cannot_use_names_it() {
    for (more, name) in [
        ("", "bus.kafka.brokers"),
        ("brokers = ' '", "bus.kafka.brokers"),
        ("partitions = 0", "bus.kafka.partitions"),
        ("replication = 0", "bus.kafka.replication"),
        ("retention_secs = 0", "bus.kafka.retention_secs"),
        ("dead_letter_brokers = ''", "bus.kafka.dead_letter_brokers"),
        ("stall_secs_max = 30", "store.postgres.wait_secs_max"),
        ("revoke_millis_max = 60000", "bus.kafka.revoke_millis_max"),
        ("initial_offset = 'yesterday'", "initial_offset"),
        ("initial_offset = 7", "initial_offset"),
        ("colour = 'red'", "colour"),
        ("[bus.kafka.security]\ncolour = 'red'", "colour"),
        (
            "[messaging]\ninbox_retention_secs = 108599",
            "messaging.inbox_retention_secs",
        ),
    ] {
        let brokers = if name == "bus.kafka.brokers" {
            ""
        } else {
            "brokers = 'h:9092'"
        };
        let file = format!("{OVER_KAFKA}[bus.kafka]\n{brokers}\n{more}");
        let text = refusal(&file, &[]);
        assert!(text.contains(name), "{more:?}: {text}");
    }
}

#[cfg(feature = "kafka")]
#[test]
fn secrets_of_kafka_come_from_the_environment_and_are_never_printed() {
    let secrets = [
        ("BOXOFFICE_BUS__KAFKA__SECURITY__PROTOCOL", "sasl_ssl"),
        ("BOXOFFICE_BUS__KAFKA__SECURITY__SASL_PASSWORD", "20261122"),
        (
            "BOXOFFICE_BUS__KAFKA__SECURITY__SSL_KEY_PASSWORD",
            "20261122",
        ),
    ];
    let config = load("", &secrets, &Flags::default()).unwrap();
    let security = &config.bus.kafka.security;
    assert_eq!(security.sasl_password.as_deref(), Some("20261122"));
    assert_eq!(security.ssl_key_password.as_deref(), Some("20261122"));
    assert!(!format!("{config:?}").contains("20261122"));
}
