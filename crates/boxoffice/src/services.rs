//! Which services a process runs: all of them, or some.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

/// A service, or half of one: `-api` answers HTTP requests, `-worker` handles messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Event,
    TicketingApi,
    TicketingWorker,
    User,
    PaymentApi,
    PaymentWorker,
    DeadLetter,
}

impl Service {
    const ALL: [Self; 7] = [
        Self::Event,
        Self::TicketingApi,
        Self::TicketingWorker,
        Self::User,
        Self::PaymentApi,
        Self::PaymentWorker,
        Self::DeadLetter,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::TicketingApi => "ticketing-api",
            Self::TicketingWorker => "ticketing-worker",
            Self::User => "user",
            Self::PaymentApi => "payment-api",
            Self::PaymentWorker => "payment-worker",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// At least one service. As text: `all`, or a comma-separated list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services(BTreeSet<Service>);

/// The name of no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown service {0:?}: use all, or some of event, ticketing-api, ticketing-worker, user, payment-api, payment-worker, dead-letter"
)]
pub struct UnknownService(String);

impl Services {
    #[must_use]
    pub fn all() -> Self {
        Self(Service::ALL.into())
    }

    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        self.0.contains(&service)
    }

    /// Whether the process calls the payment gateway.
    #[must_use]
    pub fn has_payment(&self) -> bool {
        self.has(Service::PaymentApi) || self.has(Service::PaymentWorker)
    }

    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.len() == Service::ALL.len()
    }
}

impl FromStr for Services {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        if text.trim() == "all" {
            return Ok(Self::all());
        }
        let service = |name: &str| {
            let found = Service::ALL.into_iter().find(|it| it.name() == name.trim());
            found.ok_or_else(|| UnknownService(name.trim().to_owned()))
        };
        text.split(',')
            .map(service)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|service| service.name()).collect();
        formatter.write_str(&names.join(","))
    }
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_a_comma_separated_list_of_known_names() {
        assert_eq!("all".parse(), Ok(Services::all()));
        let some: Services = "payment-worker, event".parse().unwrap();
        assert!(some.has(Service::Event) && !some.has(Service::User) && !some.is_all());
        assert_eq!(some.to_string(), "event,payment-worker");
        assert_eq!(some.to_string().parse(), Ok(some));
        for wrong in ["", "events", "event,"] {
            assert!(wrong.parse::<Services>().is_err(), "{wrong:?}");
        }
    }
}
