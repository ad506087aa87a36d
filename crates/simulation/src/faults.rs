//! What may go wrong. Each run draws how often each kind strikes, so that some runs have few kinds and many of each.

use std::collections::BTreeMap;

use messaging::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A commit is refused, and not applied.
    CommitFails,
    /// Commits fail for seconds, for want of space.
    DiskFull,
    /// A commit's answer is lost; whether it was applied becomes known later.
    CommitUnknown,
    /// A commit takes up to two seconds.
    CommitSlow,
    /// A database does not answer for seconds.
    StoreAway,
    /// A read fails.
    ReadFails,
    /// A message is published twice.
    Duplicate,
    /// A message is published seconds later; those of its key wait behind it.
    PublishSlow,
    /// A partition is read seconds later, so that topics overtake each other.
    PartitionSlow,
    /// A batch is handled, and delivered again.
    AckLost,
    /// The partitions of a group move in the middle of a batch.
    Rebalance,
    /// The broker does not answer for seconds.
    BrokerAway,
    /// Somebody else writes a record to a topic.
    Foreign,
    /// A command is not executed.
    RedisFails,
    /// A command is executed, and its answer is lost.
    RedisAnswerLost,
    /// A command takes up to three seconds.
    RedisSlow,
    /// Redis comes back empty.
    RedisEmpty,
    /// Redis fails over without the last writes.
    RedisOld,
    /// No connection to the gateway.
    GatewayAway,
    /// The gateway does it, and the connection breaks.
    GatewayBreaks,
    /// The gateway answers late.
    GatewaySlow,
    /// The gateway does it, and answers 500.
    GatewayErrs,
    /// The gateway refuses with a code of its script.
    GatewayRefuses,
    /// The gateway refuses to cancel a charge, and refuses again.
    RefundStuck,
    /// A webhook comes: true or false, early or late, again.
    Webhook,
    /// A process is killed.
    Crash,
    /// A process is stopped, and started again.
    Stop,
    /// A process stands still, longer than leases and sessions.
    Pause,
    /// A process stands still as it waits for an answer, longer than leases and sessions.
    PauseAtCall,
    /// A process's clock is set forward.
    ClockForward,
    /// A process's clock is set back.
    ClockBack,
    /// A client goes away before the answer.
    ClientDrops,
    /// A client sends a request twice at once.
    ClientRepeats,
}

/// Each kind, and how often it strikes where it can, of a thousand times, in a run that has much of it.
pub const FAULTS: &[(Fault, u64)] = &[
    (Fault::CommitFails, 20),
    (Fault::DiskFull, 2),
    (Fault::CommitUnknown, 12),
    (Fault::CommitSlow, 30),
    (Fault::StoreAway, 1),
    (Fault::ReadFails, 8),
    (Fault::Duplicate, 60),
    (Fault::PublishSlow, 40),
    (Fault::PartitionSlow, 30),
    (Fault::AckLost, 20),
    (Fault::Rebalance, 2),
    (Fault::BrokerAway, 1),
    (Fault::Foreign, 4),
    (Fault::RedisFails, 15),
    (Fault::RedisAnswerLost, 15),
    (Fault::RedisSlow, 20),
    (Fault::RedisEmpty, 1),
    (Fault::RedisOld, 1),
    (Fault::GatewayAway, 30),
    (Fault::GatewayBreaks, 60),
    (Fault::GatewaySlow, 60),
    (Fault::GatewayErrs, 40),
    (Fault::GatewayRefuses, 30),
    (Fault::RefundStuck, 60),
    (Fault::Webhook, 300),
    (Fault::Crash, 2),
    (Fault::Stop, 1),
    (Fault::Pause, 2),
    (Fault::PauseAtCall, 1),
    (Fault::ClockForward, 1),
    (Fault::ClockBack, 1),
    (Fault::ClientDrops, 60),
    (Fault::ClientRepeats, 100),
];

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
