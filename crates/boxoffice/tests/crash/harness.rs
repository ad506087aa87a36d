//! One data folder and, round after round, a server on it that is killed or stopped while buyers use it.

use std::{fs, path::Path, pin::pin, time::Duration};

use boxoffice::audit::{Books, audit};
use futures::{
    StreamExt,
    future::{self, Either},
    stream,
};
use messaging::{Clock, Random};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{api::ApiRequest, calls::CallLog, eventually, process::ExitKind};

use crate::{
    buyers::{BuyerKind, CrashBuyer, PRICE, draw},
    promises,
    server::{self, POLLING, Server},
};

/// Buyers of one round, and how many of them act concurrently.
const BUYERS: usize = 48;
const BUYERS_AT_ONCE: usize = 8;
/// One event has tickets for every buyer, the other for few.
const QUANTITIES: [i64; 2] = [100_000, 12];

pub struct CrashHarness {
    folder: Option<TempDir>,
    random: Random,
    pub calls: CallLog,
    events: Vec<i64>,
    rounds: usize,
}

/// When a server is stopped or killed: `then` after this number of answers in the round.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub answers: usize,
    pub then: Duration,
}

/// How a round ends.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// The server crashes at its failpoint.
    ByItself,
    Kill(Moment),
    /// Killed while it starts, or just after.
    KillAtStart(Duration),
    Terminate(Moment),
    /// Told to stop by SIGTERM and killed before it has stopped.
    KillAsItStops(Moment, Duration),
}

impl CrashHarness {
    /// A folder with two events on sale and no server.
    pub async fn open(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let calls = CallLog::default();
        let server = Server::start(folder.path());
        let mut events = Vec::new();
        for quantity in QUANTITIES {
            let request = ApiRequest::register_event("Show", quantity, PRICE)
                .with_key(format!("opening-{quantity}"));
            let answer = calls.log(&request, server.send(&request)).await.unwrap();
            let event = answer.number_of("id").unwrap();
            on_sale(&server, event).await;
            events.push(event);
        }
        server.kill();
        Self {
            folder: Some(folder),
            random: Random::seeded(seed),
            calls,
            events,
            rounds: 0,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub fn random(&self) -> &Random {
        &self.random
    }

    /// Runs one server on the folder: it recovers, unanswered requests are repeated, and new buyers act.
    pub async fn round(
        &mut self,
        kinds: &[(BuyerKind, u64)],
        failpoints: &str,
        ending: Ending,
    ) -> ExitKind {
        self.rounds += 1;
        let starting = server::spawn(self.path(), failpoints);
        if let Ending::KillAtStart(after) = ending {
            // This sleep is the random moment; it waits for no condition.
            tokio::time::sleep(after).await;
            drop(starting);
            self.audit_stopped_folder();
            return ExitKind::Killed;
        }
        let ended = match Server::listening(starting) {
            Ok(server) => self.perform(server, kinds, ending).await,
            Err(ended) => ended,
        };
        self.audit_stopped_folder();
        ended
    }

    async fn perform(
        &self,
        mut server: Server,
        kinds: &[(BuyerKind, u64)],
        ending: Ending,
    ) -> ExitKind {
        let from = self.calls.answers();
        {
            let buyers = pin!(self.buyers(&server, kinds));
            match ending {
                Ending::ByItself => buyers.await,
                Ending::KillAtStart(_) => unreachable!("it never listens"),
                Ending::Kill(moment)
                | Ending::Terminate(moment)
                | Ending::KillAsItStops(moment, _) => {
                    let reached = pin!(self.reach(moment, from));
                    let left = future::select(buyers, reached).await;
                    self.end(&server, ending).await;
                    if let Either::Right(((), buyers)) = left {
                        buyers.await;
                    }
                }
            }
        }
        server.exited().await
    }

    async fn end(&self, server: &Server, ending: Ending) {
        match ending {
            Ending::Kill(_) => server.signal("-KILL"),
            Ending::Terminate(_) => server.signal("-TERM"),
            Ending::KillAsItStops(_, after) => {
                server.signal("-TERM");
                // This sleep is the random moment.
                tokio::time::sleep(after).await;
                server.signal("-KILL");
            }
            Ending::ByItself | Ending::KillAtStart(_) => {}
        }
    }

    async fn reach(&self, moment: Moment, from: usize) {
        let mut poll = tokio::time::interval(Duration::from_millis(1));
        while self.calls.answers() < from + moment.answers {
            poll.tick().await;
        }
        // This sleep is the random moment.
        tokio::time::sleep(moment.then).await;
    }

    async fn buyers(&self, server: &Server, kinds: &[(BuyerKind, u64)]) {
        self.retry_unanswered(server).await;
        let buyers = (0..BUYERS).map(|number| {
            let name = format!("r{}b{number}", self.rounds);
            let kind = draw(kinds, &self.random);
            let event = self.events[usize::from(self.random.below(4) == 0)];
            CrashBuyer::new(server, &self.calls, name, kind, event)
        });
        let buyers: Vec<_> = buyers.collect();
        let acting = stream::iter(&buyers).map(CrashBuyer::act);
        acting.buffer_unordered(BUYERS_AT_ONCE).count().await;
    }

    /// Repeats half of the unanswered requests with their keys. A request that had taken effect is answered with that
    /// effect and never conflicts with itself.
    async fn retry_unanswered(&self, server: &Server) {
        let open = self.calls.unanswered().into_iter();
        let again: Vec<ApiRequest> = open.filter(|_| self.random.below(2) == 0).collect();
        let asking = stream::iter(again).map(|request| async move {
            let sending = server.send(&request);
            let answer = self.calls.log(&request, sending).await?;
            let is_in_its_own_way = match request.path.as_str() {
                "/ticketing/reserve" => {
                    answer.code() == "ALREADY_RESERVED" && !request.key.ends_with("-again")
                }
                "/ticketing/process" => answer.code() == "ALREADY_PROCESSING",
                _ => false,
            };
            assert!(!is_in_its_own_way, "{request:?} was answered {answer:?}");
            Some(())
        });
        asking.buffer_unordered(BUYERS_AT_ONCE).count().await;
    }

    /// Audits a copy of the folder, so that the next server still has to recover.
    fn audit_stopped_folder(&self) {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let report = audit(copy.path()).unwrap();
        assert_eq!(report.violations, [], "after round {}", self.rounds);
        let books = promises::read(copy.path());
        promises::answers_stand(&self.calls, &books, Clock::System.now());
    }

    /// Starts the last server: every accepted request completes by itself, and every promise holds before and after the
    /// server stops.
    pub async fn close(self) -> Books {
        let mut server = Server::start(self.path());
        promises::wait_until_idle(self.path()).await;
        for state in ["STARTED", "COMPENSATING"] {
            let open = server.get(&format!("/saga?state={state}")).await;
            assert_eq!(open["items"], json!([]), "sagas {state}");
        }
        let report = audit(self.path()).unwrap();
        assert_eq!(report.violations, []);
        promises::hold(&self.calls, self.path());
        self.replay(&server).await;
        let after = audit(self.path()).unwrap();
        assert_eq!(
            (after.violations, after.counts),
            (Vec::new(), report.counts.clone()),
            "a repeated request changed something"
        );
        server.signal("-TERM");
        assert_eq!(server.exited().await, ExitKind::Stopped);
        let stopped = audit(self.path()).unwrap();
        assert_eq!(
            (stopped.violations, stopped.counts),
            (Vec::new(), report.counts.clone())
        );
        eprintln!("{} answers: {:?}", self.calls.answers(), report.counts);
        promises::read(self.path())
    }

    /// Repeats every answered request and expects the same answer.
    async fn replay(&self, server: &Server) {
        let answers = stream::iter(self.calls.final_answers());
        let replaying = answers.map(|(request, first)| async move {
            // If the reservation is gone, the key reserves again.
            if request.path == "/ticketing/reserve" && !owns_ticket(server, &first.body).await {
                return;
            }
            let again = server
                .send(&request)
                .await
                .expect("this server is not killed");
            assert!(again.is_replayed(), "{request:?} was answered {again:?}");
            assert_eq!(
                (again.status, again.text),
                (first.status, first.text),
                "{request:?}"
            );
        });
        let replayed = replaying.buffer_unordered(BUYERS_AT_ONCE).count().await;
        assert!(replayed > 0, "no request was answered");
    }
}

/// Whether the reservation of this answer became a ticket that is valid.
async fn owns_ticket(server: &Server, reserved: &Value) -> bool {
    let ticket = reserved["ticketId"].as_str().unwrap();
    let url = format!("{}/ticket/{ticket}", server.url);
    let answer = server.client.get(url).send().await.unwrap();
    let ticket: Value = answer.json().await.unwrap();
    ticket["status"] == "RESERVED"
}

impl Drop for CrashHarness {
    /// Keeps the folder of a failed test for inspection.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the folder is kept: {}", folder.keep().display());
        }
    }
}

/// A new seed, or the one that `CRASH_SEED` gives.
pub fn seed(name: &str) -> u64 {
    let seed = match std::env::var("CRASH_SEED") {
        Ok(text) => text.parse().expect("CRASH_SEED is a whole number"),
        Err(_) => Random::System.below(u64::MAX),
    };
    eprintln!("{name}: CRASH_SEED={seed}");
    seed
}

async fn on_sale(server: &Server, event: i64) {
    eventually(POLLING, "the event is on sale", async || {
        let stock = server.get(&format!("/ticketing/event/{event}")).await;
        if stock["available"].is_i64() {
            Ok(())
        } else {
            Err(stock)
        }
    })
    .await;
}
