//! One data folder and the servers that end on it, round after round, under the eyes of a crowd.

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

use crate::{
    crowd::{Buyer, Kind, PRICE, draw},
    ledger::{Ask, Ledger},
    promises,
    server::{Ended, LOOK, PATIENCE, Server, Starting},
};

/// Buyers of one round, and how many of them act at once.
const BUYERS: usize = 48;
const BUYERS_AT_ONCE: usize = 8;
/// One show has tickets for everybody, the other for few.
const QUANTITIES: [i64; 2] = [100_000, 12];

pub struct Theatre {
    folder: Option<TempDir>,
    random: Random,
    pub ledger: Ledger,
    events: Vec<i64>,
    rounds: usize,
}

/// When a server is told to end, or killed: at so many answers from now, and a little later.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub answers: usize,
    pub then: Duration,
}

/// How a round is to end.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// At the failpoint.
    ByItself,
    Kill(Moment),
    /// While it starts, or just after.
    KillAtStart(Duration),
    Terminate(Moment),
    /// Told to stop, and killed before it has.
    KillAsItStops(Moment, Duration),
}

impl Theatre {
    /// A folder with two shows on sale, on which nobody serves.
    pub async fn open(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::default();
        let server = Server::start(folder.path());
        let mut events = Vec::new();
        for quantity in QUANTITIES {
            let show = json!({ "name": "Show", "ticketQuantity": quantity, "price": PRICE });
            let ask = Ask::post("/event", format!("opening-{quantity}"), show);
            let told = ledger.ask(&server, ask).await.unwrap();
            let event = told.json()["id"].as_i64().unwrap();
            on_sale(&server, event).await;
            events.push(event);
        }
        server.kill().await;
        Self {
            folder: Some(folder),
            random: Random::seeded(seed),
            ledger,
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

    /// One server on the folder: it recovers, whoever was left without an answer asks again, and a new crowd comes.
    pub async fn round(
        &mut self,
        kinds: &[(Kind, u64)],
        failpoints: &str,
        ending: Ending,
    ) -> Ended {
        self.rounds += 1;
        let starting = Starting::spawn(self.path(), failpoints);
        if let Ending::KillAtStart(after) = ending {
            // This is the random moment itself: nothing is waited for.
            tokio::time::sleep(after).await;
            starting.kill();
            self.check_while_nobody_serves();
            return Ended::Killed;
        }
        let ended = match starting.listening() {
            Ok(server) => self.perform(server, kinds, ending).await,
            Err(ended) => ended,
        };
        self.check_while_nobody_serves();
        ended
    }

    async fn perform(&self, mut server: Server, kinds: &[(Kind, u64)], ending: Ending) -> Ended {
        let from = self.ledger.answers();
        {
            let crowd = pin!(self.crowd(&server, kinds));
            match ending {
                Ending::ByItself => crowd.await,
                Ending::KillAtStart(_) => unreachable!("it never listens"),
                Ending::Kill(moment)
                | Ending::Terminate(moment)
                | Ending::KillAsItStops(moment, _) => {
                    let reached = pin!(self.reach(moment, from));
                    let left = future::select(crowd, reached).await;
                    self.end(&server, ending).await;
                    if let Either::Right(((), crowd)) = left {
                        crowd.await;
                    }
                }
            }
        }
        server.ended().await
    }

    async fn end(&self, server: &Server, ending: Ending) {
        match ending {
            Ending::Kill(_) => server.signal("-KILL"),
            Ending::Terminate(_) => server.signal("-TERM"),
            Ending::KillAsItStops(_, after) => {
                server.signal("-TERM");
                // This is the random moment itself.
                tokio::time::sleep(after).await;
                server.signal("-KILL");
            }
            Ending::ByItself | Ending::KillAtStart(_) => {}
        }
    }

    async fn reach(&self, moment: Moment, from: usize) {
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while self.ledger.answers() < from + moment.answers {
            look.tick().await;
        }
        // This is the random moment itself.
        tokio::time::sleep(moment.then).await;
    }

    async fn crowd(&self, server: &Server, kinds: &[(Kind, u64)]) {
        self.ask_again(server).await;
        let buyers = (0..BUYERS).map(|number| Buyer {
            server,
            ledger: &self.ledger,
            name: format!("r{}b{number}", self.rounds),
            kind: draw(kinds, &self.random),
            event: self.events[usize::from(self.random.below(4) == 0)],
        });
        let buyers: Vec<_> = buyers.collect();
        let acting = stream::iter(&buyers).map(Buyer::act);
        acting.buffer_unordered(BUYERS_AT_ONCE).count().await;
    }

    /// Half of those who got no answer ask again with their keys. What had happened is answered as it happened; it
    /// is never in their own way.
    async fn ask_again(&self, server: &Server) {
        let open = self.ledger.unanswered().into_iter();
        let again: Vec<Ask> = open.filter(|_| self.random.below(2) == 0).collect();
        let asking = stream::iter(again).map(|ask| async move {
            let told = self.ledger.ask(server, ask.clone()).await?;
            let is_in_its_own_way = match ask.path.as_str() {
                "/ticketing/reserve" => {
                    told.code() == "ALREADY_RESERVED" && !ask.key.ends_with("-again")
                }
                "/ticketing/process" => told.code() == "ALREADY_PROCESSING",
                _ => false,
            };
            assert!(!is_in_its_own_way, "{ask:?} was told {told:?}");
            Some(())
        });
        asking.buffer_unordered(BUYERS_AT_ONCE).count().await;
    }

    /// Audits the folder as the dead server left it: a copy, so that the next server recovers by itself.
    fn check_while_nobody_serves(&self) {
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
        promises::answers_stand(&self.ledger, &books, Clock::System.now());
    }

    /// The last server: what was accepted goes on by itself to its end, and every promise holds, now and after the
    /// server has stopped.
    pub async fn close(self) -> Books {
        let mut server = Server::start(self.path());
        promises::come_to_rest(self.path()).await;
        for state in ["STARTED", "COMPENSATING"] {
            let open = server.get(&format!("/saga?state={state}")).await;
            assert_eq!(open["items"], json!([]), "sagas {state}");
        }
        let report = audit(self.path()).unwrap();
        assert_eq!(report.violations, []);
        promises::hold(&self.ledger, self.path());
        self.replay(&server).await;
        let after = audit(self.path()).unwrap();
        assert_eq!(
            (after.violations, after.counts),
            (Vec::new(), report.counts.clone()),
            "what was repeated changed something"
        );
        server.signal("-TERM");
        assert_eq!(server.ended().await, Ended::Stopped);
        let stopped = audit(self.path()).unwrap();
        assert_eq!(
            (stopped.violations, stopped.counts),
            (Vec::new(), report.counts.clone())
        );
        eprintln!("{} answers: {:?}", self.ledger.answers(), report.counts);
        promises::read(self.path())
    }

    /// Every answered key is answered once more as it was.
    async fn replay(&self, server: &Server) {
        let answers = stream::iter(self.ledger.final_answers());
        let replaying = answers.map(|(ask, first)| async move {
            // A reservation that is gone is made anew.
            if ask.path == "/ticketing/reserve" && !owns_ticket(server, &first.json()).await {
                return;
            }
            let again = ask.send(server).await.expect("nobody kills this server");
            assert!(again.is_replay, "{ask:?} was told {again:?}");
            assert_eq!(
                (again.status, again.body),
                (first.status, first.body),
                "{ask:?}"
            );
        });
        let replayed = replaying.buffer_unordered(BUYERS_AT_ONCE).count().await;
        assert!(replayed > 0, "nobody was answered");
    }
}

/// Whether the reservation of this answer became a ticket, and stands.
async fn owns_ticket(server: &Server, reserved: &Value) -> bool {
    let ticket = reserved["ticketId"].as_str().unwrap();
    let url = format!("{}/ticket/{ticket}", server.url);
    let answer = server.client.get(url).send().await.unwrap();
    let ticket: Value = answer.json().await.unwrap();
    ticket["status"] == "RESERVED"
}

impl Drop for Theatre {
    /// What a failed test leaves is kept for whoever looks into it.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the folder is kept: {}", folder.keep().display());
        }
    }
}

/// The seed of a test: a new one, or the one that is to be played again.
pub fn seed(name: &str) -> u64 {
    let seed = match std::env::var("CRASH_SEED") {
        Ok(text) => text.parse().expect("CRASH_SEED is a whole number"),
        Err(_) => Random::System.below(u64::MAX),
    };
    eprintln!("{name}: CRASH_SEED={seed}");
    seed
}

async fn on_sale(server: &Server, event: i64) {
    let mut look = tokio::time::interval(LOOK);
    let on_sale = async {
        loop {
            look.tick().await;
            let stock = server.get(&format!("/ticketing/event/{event}")).await;
            if stock["available"].is_i64() {
                return;
            }
        }
    };
    let on_sale = tokio::time::timeout(PATIENCE, on_sale).await;
    on_sale.expect("the show never came on sale");
}
