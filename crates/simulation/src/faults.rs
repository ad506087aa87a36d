//! What may go wrong. Each run draws how often each kind strikes, so that some runs have few kinds and many of each.

use std::{collections::BTreeMap, str::FromStr};

use messaging::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident: $rate:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $kind,)*
        }

        /// Each kind, and how often it strikes where it can, of a thousand times, in a run that has much of it.
        pub const FAULTS: &[(Fault, u64)] = &[$((Fault::$kind, $rate),)*];
    };
}

faults! {
    /// A commit is refused, and not applied.
    CommitFails: 40,
    /// Commits fail for seconds, for want of space.
    DiskFull: 2,
    /// A commit's answer is lost; whether it was applied becomes known later.
    CommitUnknown: 50,
    /// A commit takes up to two seconds.
    CommitSlow: 30,
    /// A database does not answer for seconds.
    StoreAway: 1,
    /// A read fails.
    ReadFails: 8,
    /// A message is published twice.
    Duplicate: 60,
    /// A message is published seconds later; those of its key wait behind it.
    PublishSlow: 40,
    /// A partition is read seconds later, so that topics overtake each other.
    PartitionSlow: 30,
    /// A batch is handled, and delivered again.
    AckLost: 20,
    /// The partitions of a group move in the middle of a batch.
    Rebalance: 5,
    /// The broker does not answer for seconds.
    BrokerAway: 1,
    /// Somebody else writes a record to a topic.
    Foreign: 4,
    /// A command is not executed.
    RedisFails: 15,
    /// A command is executed, and its answer is lost.
    RedisAnswerLost: 40,
    /// A command takes up to three seconds.
    RedisSlow: 20,
    /// Redis comes back empty.
    RedisEmpty: 1,
    /// Redis fails over without the last writes.
    RedisOld: 1,
    /// No connection to the gateway.
    GatewayAway: 30,
    /// The gateway does it, and the connection breaks.
    GatewayBreaks: 60,
    /// The gateway answers late.
    GatewaySlow: 60,
    /// The gateway does it, and answers 500.
    GatewayErrs: 40,
    /// The gateway refuses with a code of its script.
    GatewayRefuses: 30,
    /// The gateway refuses to cancel a charge, and refuses again.
    RefundStuck: 200,
    /// A webhook comes: true or false, early or late, again.
    Webhook: 300,
    /// A process is killed.
    Crash: 2,
    /// A process is stopped, and started again.
    Stop: 1,
    /// A process stands still, longer than leases and sessions.
    Pause: 2,
    /// A process stands still as it waits for an answer, longer than leases and sessions.
    PauseAtCall: 2,
    /// A process's clock is set forward.
    ClockForward: 1,
    /// A process's clock is set back.
    ClockBack: 1,
    /// A client goes away before the answer.
    ClientDrops: 60,
    /// A client sends a request twice at once.
    ClientRepeats: 100,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut kinds = FAULTS.iter().map(|(fault, _)| *fault);
        let kind = kinds.find(|fault| format!("{fault:?}") == name);
        kind.ok_or_else(|| format!("there is no fault {name}"))
    }
}

/// How often each kind strikes in a run.
#[derive(Debug, Clone, Default)]
pub struct Weather(BTreeMap<Fault, u64>);

impl Weather {
    /// Half of the kinds are absent, a quarter is seldom, a quarter is frequent.
    #[must_use]
    pub fn draw(random: &Random, without: &[Fault]) -> Self {
        let rates = FAULTS.iter().map(|(fault, max)| {
            let rate = match random.below(4) {
                0 | 1 => 0,
                2 => max.div_ceil(4),
                _ => *max,
            };
            let is_absent = without.contains(fault);
            (*fault, if is_absent { 0 } else { rate })
        });
        Self(rates.collect())
    }

    #[must_use]
    pub fn per_mille(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }
}

/// How often each kind could strike each place, and how often it did.
#[derive(Debug, Clone, Default)]
pub struct Coverage(BTreeMap<Fault, BTreeMap<String, (u64, u64)>>);

impl Coverage {
    pub fn count(&mut self, fault: Fault, place: &str, struck: bool) {
        let places = self.0.entry(fault).or_default();
        if !places.contains_key(place) {
            places.insert(place.to_owned(), (0, 0));
        }
        if let Some((visits, strikes)) = places.get_mut(place) {
            *visits += 1;
            *strikes += u64::from(struck);
        }
    }

    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        let mut places = self.0.get(&fault).into_iter().flat_map(BTreeMap::values);
        places.any(|(_, strikes)| *strikes > 0)
    }

    /// One line for each pair: fault, place, how often it could strike, and how often it did, with tabs between.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let pairs = self.0.iter().flat_map(|(fault, places)| {
            let line = move |(place, (visits, strikes)): (&String, &(u64, u64))| {
                format!("{fault:?}\t{place}\t{visits}\t{strikes}")
            };
            places.iter().map(line)
        });
        pairs.collect()
    }
}
