//! A small bank, unrelated to tickets: accounts, the ledger of their movements, and deposits.

use messaging::{Column, Commit, Entry, Message, Payload, Record, Store, Table, Timestamp};
use serde::{Deserialize, Serialize};

/// The tables that the suites use.
pub fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, &[Account::TABLE, Movement::TABLE]].concat()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: i64,
    pub owner: String,
    pub balance: i64,
    pub frozen: bool,
    pub tags: Vec<String>,
    pub note: Option<String>,
    pub version: i64,
}

impl Account {
    pub fn new(id: i64, balance: i64) -> Self {
        let (owner, tags) = (format!("owner {id}"), vec!["new".to_owned()]);
        Self {
            id,
            owner,
            balance,
            frozen: false,
            tags,
            note: None,
            version: 0,
        }
    }

    pub fn with_balance(&self, balance: i64) -> Self {
        Self {
            balance,
            ..self.clone()
        }
    }
}

impl Record for Account {
    const TABLE: &'static Table = &Table {
        name: "account",
        columns: &[
            Column::integer("id"),
            Column::text("owner"),
            Column::integer("balance"),
            Column::boolean("frozen"),
            Column::json("tags"),
            Column::text("note").null(),
            Column::VERSION,
        ],
        key: "id",
        constraints: &["UNIQUE (owner)", "CHECK (balance >= 0)"],
        indexes: &["(balance)"],
    };
}

/// A line of an account's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    pub id: String,
    pub account: i64,
    pub amount: i64,
    pub at: Timestamp,
}

impl Entry for Movement {
    const TABLE: &'static Table = &Table {
        name: "movement",
        columns: &[
            Column::text("id"),
            Column::integer("account"),
            Column::integer("amount"),
            Column::text("at"),
        ],
        key: "id",
        constraints: &["CHECK (amount <> 0)"],
        indexes: &["(at)"],
    };
}

pub fn movement(id: &str, account: i64, amount: i64) -> Movement {
    let id = id.to_owned();
    Movement {
        id,
        account,
        amount,
        at: start(),
    }
}

/// Moves money on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    pub account: i64,
    pub amount: i64,
}

impl Payload for Deposit {
    const TOPIC: &'static str = "bank.deposit.request";
    fn key(&self) -> String {
        self.account.to_string()
    }
}

/// Something else on the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    pub number: i64,
}

impl Payload for Noise {
    const TOPIC: &'static str = "noise";
    fn key(&self) -> String {
        self.number.to_string()
    }
}

pub fn start() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

pub fn deposit(id: &str, account: i64, amount: i64) -> Message {
    Message::new(id, &Deposit { account, amount }, start())
}

pub fn noise(number: i64) -> Message {
    Message::new(format!("noise {number}"), &Noise { number }, start())
}

/// Stores what is new or changed, in one commit.
pub async fn store_all(store: &Store, accounts: &[Account]) {
    let mut commit = Commit::new();
    for account in accounts {
        commit.put(account);
    }
    store.commit(commit).await.unwrap();
}

pub async fn publish(store: &Store, messages: impl IntoIterator<Item = Message>) {
    let mut commit = Commit::new();
    for message in messages {
        commit.publish(message);
    }
    store.commit(commit).await.unwrap();
}

pub async fn account(store: &Store, id: i64) -> Account {
    store
        .load(id)
        .await
        .unwrap()
        .expect("the account is stored")
}

pub async fn balance(store: &Store, id: i64) -> i64 {
    account(store, id).await.balance
}

pub async fn movements(store: &Store) -> Vec<Movement> {
    let all = messaging::Find::all(Movement::TABLE, 100_000);
    store.find(all).await.unwrap()
}
