//! A bank, as a participant of transfers. It stores what it has booked for each saga, so that a repeated request gets the
//! same reply and no second effect.

use messaging::{
    Column, Commit, Consumer, Key, Message, Record, Records, Ref, Rejection, Store, Table,
    Timestamp,
};
use serde::{Deserialize, Serialize};

pub const TRANSFERS: i64 = 300;
pub const AMOUNT: i64 = 10;

/// The balance of a bank's account, or what one saga has booked on it: `north`, `north/SAGA`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Balance {
    id: String,
    pub amount: i64,
    version: i64,
}

impl Record for Balance {
    const TABLE: &'static Table = &Table {
        name: "balance",
        columns: &[
            Column::text("id"),
            Column::integer("amount"),
            Column::integer("version"),
        ],
        key: "id",
        constraints: &["CHECK (amount >= 0)"],
        indexes: &[],
    };

    fn key(&self) -> Key {
        self.id.as_str().into()
    }

    fn version(&self) -> i64 {
        self.version
    }
}

fn new_balance(id: String, amount: i64) -> Balance {
    let version = 0;
    Balance {
        id,
        amount,
        version,
    }
}

pub async fn open_accounts(store: &Store) {
    if store.load::<Balance>(NORTH.name).await.unwrap().is_none() {
        let mut commit = Commit::new();
        commit.put(&new_balance(NORTH.name.to_owned(), TRANSFERS * AMOUNT));
        commit.put(&new_balance(SOUTH.name.to_owned(), 0));
        store.commit(commit).await.unwrap();
    }
}

pub struct Bank {
    name: &'static str,
    topics: &'static [&'static str],
    /// Of a request's booking: north pays out, south takes in.
    sign: i64,
    balance_max: i64,
}

pub const NORTH: Bank = Bank {
    name: "north",
    topics: &["north.debit.request", "north.reverse.request"],
    sign: -1,
    balance_max: i64::MAX,
};

pub const SOUTH: Bank = Bank {
    name: "south",
    topics: &["south.credit.request", "south.reverse.request"],
    sign: 1,
    balance_max: 2_000,
};

impl Consumer for Bank {
    type Prefetched = ();

    fn group(&self) -> &'static str {
        self.name
    }

    fn topics(&self) -> &'static [&'static str] {
        self.topics
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        let booking = Ref::to::<Balance>(self.booking_id(message));
        Ok(vec![Ref::to::<Balance>(self.name), booking])
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        let account: Option<Balance> = records.get(self.name)?;
        let mut account = account.ok_or_else(|| Rejection::new("there is no account"))?;
        let booking_id = self.booking_id(message);
        let known: Option<Balance> = records.get(booking_id.as_str())?;
        let is_new = known.is_none();
        let mut booking = known.unwrap_or_else(|| new_balance(booking_id, 0));

        let amount: i64 = message.parse()?;
        let is_reversal = message.topic.ends_with("reverse.request");
        let fits = (0..=self.balance_max).contains(&(account.amount + self.sign * amount));
        let before = booking.amount;
        if is_reversal {
            // It is stored even if its request has not arrived yet, which is then refused.
            booking.amount = 0;
        } else if is_new && fits {
            booking.amount = amount;
        }
        account.amount += self.sign * (booking.amount - before);

        let accepted = is_reversal || booking.amount > 0;
        let (topic, id) = (reply_topic(message), format!("{}:reply", message.id));
        let mut commit = Commit::new();
        commit.put(&account).put(&booking);
        commit.publish(Message::on(topic, message.key.clone(), id, &accepted, now));
        Ok(twice(commit))
    }
}

impl Bank {
    fn booking_id(&self, message: &Message) -> String {
        format!("{}/{}", self.name, message.key)
    }
}

fn reply_topic(message: &Message) -> String {
    message.topic.replace(".request", ".response")
}

/// Publishes every message a second time, under another id: the inbox would drop a second one with the same id.
pub fn twice(mut commit: Commit) -> Commit {
    for message in commit.messages.clone() {
        let mut again = (*message).clone();
        again.id = format!("{} again", message.id);
        commit.publish(again);
    }
    commit
}
