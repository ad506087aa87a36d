//! Transfers between two banks, as sagas: a debit at `north` ([`bank`]), then a credit at `south`. South refuses what exceeds
//! its limit, and the debit is then reversed. Every message is published twice, and the process is killed in the middle and
//! started again. At the end no money is lost or created.
//!
//!   cargo run -p messaging --example transfer
//!   cargo run -p messaging --example transfer -- --postgres URL
//!   cargo run -p messaging --example transfer --features kafka -- --postgres URL --kafka HOST:PORT
#![expect(clippy::unwrap_used, reason = "an example that cannot go on fails")]

mod bank;
mod engines;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bank::{AMOUNT, Balance, NORTH, SOUTH, TRANSFERS, twice};
use messaging::coordinator::{Domain, NewSaga, SagaRecord, Send, advance, begin, timeout_input};
use messaging::{
    Clock, Commit, Consumer, Message, Random, Record, Records, Ref, Rejection, Runner, SagaId,
    Store, Timestamp,
};
use saga::{Catalog, Definition, Input, Outcome, Step};

const TRANSFER: Definition = Definition {
    kind: "transfer",
    version: 1,
    steps: &[
        Step::new("debit", "north.debit.request").compensated_by("north.reverse.request"),
        Step::new("credit", "south.credit.request").compensated_by("south.reverse.request"),
    ],
};

/// The coordinator: what the requests of a transfer contain, and what a reply or timeout does.
struct Transfers;

impl Domain for Transfers {
    const TIMEOUT_TOPIC: &'static str = "transfer.timeout";

    fn catalog(&self) -> Catalog {
        Catalog(&[&TRANSFER])
    }

    fn request(
        &self,
        saga: &SagaRecord,
        send: &Send,
        now: Timestamp,
    ) -> Result<Message, Rejection> {
        let (key, id) = (saga.saga_id.to_string(), &send.message_id);
        let amount = &saga.payload["amount"];
        Ok(Message::on(send.topic, key, id, amount, now))
    }
}

impl Consumer for Transfers {
    type Prefetched = ();

    fn group(&self) -> &'static str {
        "transfers"
    }

    fn topics(&self) -> &'static [&'static str] {
        &[
            "north.debit.response",
            "north.reverse.response",
            "south.credit.response",
            "south.reverse.response",
            Self::TIMEOUT_TOPIC,
        ]
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        Ok(vec![Ref::to::<SagaRecord>(message.key.as_str())])
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        let saga: Option<SagaRecord> = records.get(message.key.as_str())?;
        let saga = saga.ok_or_else(|| Rejection::new("there is no such transfer"))?;
        let input = match TRANSFER.find_by_response(&message.topic) {
            None => timeout_input(&message.parse()?),
            Some((step, direction)) => Input::Reply {
                step,
                direction,
                outcome: outcome(message.parse()?),
            },
        };
        let progress = advance(self, saga, input, now)?;
        Ok(progress.map_or_else(Commit::new, |it| twice(it.commit)))
    }
}

fn outcome(accepted: bool) -> Outcome {
    let reason = "the bank refused".to_owned();
    match accepted {
        true => Outcome::Proceed,
        false => Outcome::Refuse { reason },
    }
}

/// Without `--run`: starts itself as another process, kills it in the middle, and starts it again.
#[tokio::main]
async fn main() {
    if let Some(run) = engines::argument("--run") {
        return serve(&run).await;
    }
    let run = Random::System.below(1 << 30).to_string();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(std::env::args().skip(1)).args(["--run", &run]);
    let mut first = program.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let numbers = lines.map(|line| line.unwrap().parse::<i64>().unwrap());
    let ended = { numbers }.find(|ended| *ended >= TRANSFERS / 3).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    println!("kill -9 after {ended} of {TRANSFERS} transfers; now again:");
    let second = program.stdout(Stdio::inherit()).status().unwrap();
    assert!(second.success());
}

async fn serve(run: &str) {
    let (store, bus) = engines::open(run).await;
    let running = Runner::new(store.clone(), bus)
        .consumer(NORTH)
        .consumer(SOUTH)
        .consumer(Transfers)
        .dead_letters()
        .start()
        .unwrap();
    bank::open_accounts(&store).await;
    for number in 0..TRANSFERS {
        start(&store, number).await;
        if number % 50 == 0 {
            println!("{}", ended(&store).await.iter().sum::<i64>());
        }
    }
    while ended(&store).await.iter().sum::<i64>() < TRANSFERS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = running.stop(Duration::from_secs(10)).await;
    assert!(late.is_empty(), "{late:?}");
    check(&store).await;
}

/// Starts a transfer, unless the killed process did.
async fn start(store: &Store, number: i64) {
    let saga_id = SagaId(uuid::Uuid::from_u64_pair(0, number.unsigned_abs()));
    if store.load::<SagaRecord>(saga_id).await.unwrap().is_some() {
        return;
    }
    let new_saga = NewSaga {
        saga_id,
        reference_id: number.to_string(),
        payload: serde_json::json!({ "amount": AMOUNT }),
    };
    let progress = begin(&Transfers, &TRANSFER, new_saga, Clock::System.now()).unwrap();
    store.commit(twice(progress.commit)).await.unwrap();
}

/// How many transfers are completed, and how many compensated.
async fn ended(store: &Store) -> [i64; 2] {
    let states = store.count_by(SagaRecord::TABLE, "state", None).await;
    let states = states.unwrap();
    ["COMPLETED", "COMPENSATED"].map(|state| {
        let counts = states.iter().filter(|it| it.0 == state).map(|it| it.1);
        counts.sum()
    })
}

async fn check(store: &Store) {
    let [completed, compensated] = ended(store).await;
    let balance = async |bank| store.load::<Balance>(bank).await.unwrap().unwrap().amount;
    let (north, south) = (balance("north").await, balance("south").await);
    println!("{completed} completed, {compensated} compensated; north {north}, south {south}");
    assert_eq!((completed, compensated), (200, 100));
    assert_eq!((north, south), (1_000, 2_000));
}
