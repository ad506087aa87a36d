//! Which services a process runs: all of them, or some.

use std::{collections::BTreeSet, fmt, str::FromStr};

use clap::ValueEnum;
use serde::{Deserialize, Deserializer};

/// A service, or half of one: `-api` answers HTTP requests, `-worker` handles messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Service {
    Event,
    TicketingApi,
    TicketingWorker,
    User,
    PaymentApi,
    PaymentWorker,
    DeadLetter,
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
    pub fn all() -> Self {
        Self(Service::value_variants().iter().copied().collect())
    }

    pub fn has(&self, service: Service) -> bool {
        self.0.contains(&service)
    }

    /// Whether the process calls the payment gateway.
    pub fn has_payment(&self) -> bool {
        self.has(Service::PaymentApi) || self.has(Service::PaymentWorker)
    }

    pub fn is_all(&self) -> bool {
        self.0.len() == Service::value_variants().len()
    }
}

impl FromStr for Services {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        if text.trim() == "all" {
            return Ok(Self::all());
        }
        let service = |name: &str| {
            Service::from_str(name.trim(), false)
                .map_err(|_| UnknownService(name.trim().to_owned()))
        };
        text.split(',')
            .map(service)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.iter().filter_map(Service::to_possible_value);
        let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
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
