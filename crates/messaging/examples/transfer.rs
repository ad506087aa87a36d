//! Transfers between two banks, as sagas: a debit at `north`, a credit at `south`; if south refuses, the debit is reversed.
//! Every message is published twice, and the process is killed in the middle and started again: no money is lost or created.
//!
//!   cargo run -p messaging --example transfer
//!   cargo run -p messaging --example transfer -- --postgres URL
//!   cargo run -p messaging --example transfer --features kafka -- --postgres URL --kafka HOST:PORT

use std::{error::Error, io::Read, process::Command, process::Stdio, time::Duration};

use messaging::coordinator::{Coordinator, Domain, NewSaga, Progress, SagaRecord, begin_once};
use messaging::{
    Clock, Column, Commit, Consumer, Decision, Engines, Group, Message, Random, Record, Records,
    Ref, Rejection, Runner, Table, Timestamp,
};
use saga::{Catalog, Definition, Step};
use serde::{Deserialize, Serialize};

/// A bank, as a participant. North pays out, and south takes in, up to a limit.
struct Bank {
    group: Group,
    limit: i64,
}

const NORTH: Bank = Bank {
    group: Group::new("north", &["north.debit.request", "north.reverse.request"]),
    limit: 3_000,
};
const SOUTH: Bank = Bank {
    group: Group::new("south", &["south.credit.request", "south.reverse.request"]),
    limit: 2_000,
};

/// What a bank has booked on its account, or for one saga: `north`, `north/SAGA`.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Booked {
    id: String,
    sum: i64,
    version: i64,
}

impl Record for Booked {
    const TABLE: &'static Table = &Table {
        name: "booked",
        columns: &[Column::text("id"), Column::integer("sum"), Column::VERSION],
        key: "id",
        constraints: &["CHECK (sum >= 0)"],
        indexes: &[],
    };
}

impl Consumer for Bank {
    /// The id of the saga's booking, and the amount.
    type Input = (String, i64);
    type Prefetched = ();
    type Outcome = ();

    fn group(&self) -> Group {
        self.group
    }

    fn read(&self, message: &Message) -> Result<Self::Input, Rejection> {
        let booking = format!("{}/{}", self.group.name, message.key);
        Ok((booking, message.parse()?))
    }

    fn required_records(&self, (booking, _): &Self::Input) -> Vec<Ref> {
        [self.group.name, booking].map(Ref::to::<Booked>).into()
    }

    /// What it has booked for a saga is stored, so that a repeated request gets the same reply and no second effect.
    fn decide(
        &self,
        message: &Message,
        (booking, amount): &Self::Input,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        let mut account: Booked = records.get(self.group.name)?.unwrap_or_default();
        let mut booked: Booked = records.get(booking.as_str())?.unwrap_or_default();
        account.id = self.group.name.to_owned();
        booked.id.clone_from(booking);
        let is_reversal = message.topic.ends_with("reverse.request");
        account.sum -= booked.sum;
        if is_reversal {
            // It is stored even if its request has not arrived yet, which is then refused.
            booked.sum = 0;
        } else if booked.version == 0 && account.sum + amount <= self.limit {
            booked.sum = *amount;
        }
        account.sum += booked.sum;
        let accepted = is_reversal || booked.sum > 0;
        let mut commit = Commit::new();
        commit.put(&account).put(&booked);
        commit.publish(message.reply_untyped(&accepted, now));
        Ok(twice(commit).into())
    }
}

/// Publishes every message a second time, under another id: the inbox would drop a second one with the same id.
fn twice(mut commit: Commit) -> Commit {
    for message in commit.messages.clone() {
        let mut again = Message::clone(&message);
        again.id.push_str(" again");
        commit.publish(again);
    }
    commit
}

const TRANSFER: Definition = Definition {
    kind: "transfer",
    version: 1,
    steps: &[
        Step::new("debit", "north.debit.request").compensated_by("north.reverse.request"),
        Step::new("credit", "south.credit.request").compensated_by("south.reverse.request"),
    ],
};

/// A request has the payload of the transfer, the amount; a reply says whether the bank accepts it.
struct Transfers;

impl Domain for Transfers {
    const GROUP: Group = Group {
        name: "transfers",
        topics: &[
            "north.debit.response",
            "north.reverse.response",
            "south.credit.response",
            "south.reverse.response",
            Self::TIMEOUT_TOPIC,
        ],
    };
    const TIMEOUT_TOPIC: &'static str = "transfer.timeout";
    const CATALOG: Catalog = Catalog(&[&TRANSFER]);

    fn commit(&self, progress: Progress, _: Timestamp) -> Commit {
        twice(progress.commit)
    }
}

/// Without `--run`: starts itself as another process, kills it in the middle, and starts it again.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(run) = argument("--run") {
        return serve(&run).await;
    }
    let run = format!("transfer_{}", Random::System.below(1 << 30));
    let mut program = Command::new(std::env::current_exe()?);
    program.args(std::env::args().skip(1)).args(["--run", &run]);
    let mut first = program.stdout(Stdio::piped()).spawn()?;
    let output = first.stdout.as_mut().ok_or("there is no pipe")?;
    output.read_exact(&mut [0])?; // Its first line comes in the middle.
    first.kill()?;
    first.wait()?;
    println!("kill -9 in the middle, and again:");
    assert!(program.stdout(Stdio::inherit()).status()?.success());
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|it| it != name).nth(1)
}

/// The engines that the command line names.
fn engines(run: &str) -> Engines {
    match (argument("--postgres"), argument("--kafka")) {
        (None, _) => Engines::embedded(&std::env::temp_dir().join(run)),
        (Some(url), None) => Engines::postgres(url, run),
        (Some(url), Some(brokers)) => Engines::kafka(url, brokers, run),
    }
}

async fn serve(run: &str) -> Result<(), Box<dyn Error>> {
    let groups = [NORTH.group, SOUTH.group, Transfers::GROUP];
    let (store, bus) = engines(run).open(&[Booked::TABLE], &groups).await?;
    let mut runner = Runner::new(store.clone(), bus);
    runner.consumer(NORTH).consumer(SOUTH).dead_letters();
    let running = runner.saga(Coordinator::new(Transfers)?).start()?;
    for number in 0..300 {
        let transfer = NewSaga::new(format!("transfer {number}"), 10.into());
        begin_once(&store, &Transfers, &TRANSFER, transfer, Clock::System.now()).await?;
        if number == 150 {
            println!("half of the transfers have begun");
        }
    }
    let mut committed = store.committed();
    let open = Some("state IN ('STARTED', 'COMPENSATING')");
    let count = async |only| store.count_by(SagaRecord::TABLE, "state", only).await;
    while !count(open).await?.is_empty() {
        committed.changed().await?;
    }
    assert!(running.stop(Duration::from_secs(10)).await.is_empty());
    println!("{:?}", count(None).await?);
    for bank in ["north", "south"] {
        let sum = store.load::<Booked>(bank).await?.map(|it| it.sum);
        println!("{bank}: {sum:?}");
        assert_eq!(sum, Some(2_000));
    }
    Ok(())
}
