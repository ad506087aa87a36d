//! Redis: the commands that the reservations use, and their scripts, which run in Lua 5.1 as there. Each command is atomic.
//!
//! State: the keys; what they were a moment ago, for a failover that loses the last writes.

mod commands;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use futures::{FutureExt, future::BoxFuture};
use mlua::{Lua, Value as LuaValue};
use parking_lot::Mutex;
use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};
use ticketing::redis_server::RedisEngine;

use commands::{forget_if_empty, map, map_command};

use crate::{
    faults::Fault,
    world::{Outage, World, pause},
};

/// How old the state is to which a failover may fall back.
const REPLICA_MILLIS: i64 = 400;
const INFO: &str = "redis_version:7.2.0\r\nmaxmemory_policy:noeviction\r\n";

#[derive(Debug, Clone)]
enum Entry {
    Text(String),
    /// A hash, or a sorted set with its scores.
    Map(BTreeMap<String, String>),
}

type Keys = BTreeMap<String, Entry>;

pub struct RedisDouble {
    world: Arc<World>,
    lua: Lua,
    scripts: Mutex<HashMap<String, String>>,
    keys: Mutex<Keys>,
    replica: Mutex<(i64, Keys)>,
    away: Outage,
    /// When an operator deletes the keys, as docs/distributed.md says for a failover that lost writes; 0: never.
    deleted_at: AtomicI64,
}

impl RedisDouble {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let redis = Arc::new(Self {
            world: Arc::clone(world),
            lua: Lua::new(),
            scripts: Mutex::default(),
            keys: Mutex::default(),
            replica: Mutex::default(),
            away: Outage::default(),
            deleted_at: AtomicI64::new(0),
        });
        let double = Arc::downgrade(&redis);
        let call = redis
            .lua
            .create_function(move |lua, words: mlua::Variadic<LuaValue>| {
                let double = double
                    .upgrade()
                    .ok_or_else(|| mlua::Error::runtime("Redis is gone"))?;
                let words = words
                    .iter()
                    .map(text_of)
                    .collect::<mlua::Result<Vec<_>>>()?;
                let reply = double.command(&words).map_err(mlua::Error::runtime)?;
                to_lua(lua, &reply)
            });
        let library = redis.lua.create_table().unwrap();
        library.set("call", call.unwrap()).unwrap();
        redis.lua.globals().set("redis", library).unwrap();
        redis
    }

    /// Executes a command as one of the server's clients sees it.
    fn answer(&self, words: &[String]) -> RedisResult<Value> {
        match words[0].as_str() {
            "EVALSHA" => self.run_script(&words[1], &words[2..]),
            "SCRIPT" => {
                let hash = Script::new(&words[2]).get_hash().to_owned();
                self.scripts.lock().insert(hash.clone(), words[2].clone());
                Ok(Value::BulkString(hash.into_bytes()))
            }
            _ => self.command(words).map_err(|reason| failed(&reason)),
        }
    }

    fn run_script(&self, hash: &str, words: &[String]) -> RedisResult<Value> {
        let Some(text) = self.scripts.lock().get(hash).cloned() else {
            return Err((
                ErrorKind::Server(ServerErrorKind::NoScript),
                "load it first",
            )
                .into());
        };
        let count: usize = words[0].parse().unwrap();
        let (keys, arguments) = words[1..].split_at(count);
        let set = |name: &str, values: &[String]| {
            let table = self.lua.create_sequence_from(values.iter().cloned())?;
            self.lua.globals().set(name, table)
        };
        let run = || {
            set("KEYS", keys)?;
            set("ARGV", arguments)?;
            let function = self.lua.load(&text).into_function()?;
            from_lua(&function.call(())?)
        };
        run().map_err(|error| failed(&error.to_string()))
    }

    fn command(&self, words: &[String]) -> Result<Value, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut keys = self.keys.lock();
        Ok(
            match (words[0].to_ascii_uppercase().as_str(), &words[1..]) {
                ("INFO", _) => bulk(INFO),
                ("PING", _) => bulk("PONG"),
                ("EXISTS", [key]) => integer(keys.contains_key(*key)),
                ("GET", [key]) => match keys.get(*key) {
                    Some(Entry::Text(text)) => bulk(text),
                    _ => Value::Nil,
                },
                ("SET", [key, value, ..]) => {
                    keys.insert((*key).to_owned(), Entry::Text((*value).to_owned()));
                    Value::Okay
                }
                ("DEL" | "UNLINK", those) => Value::Int(
                    those
                        .iter()
                        .filter(|key| keys.remove(**key).is_some())
                        .count() as i64,
                ),
                // Tickets that are indexed for too long do no harm.
                ("PEXPIRE", _) => Value::Int(1),
                (name, [key, rest @ ..]) if matches!(name.as_bytes()[0], b'H' | b'Z') => {
                    let reply = map_command(map(&mut keys, key), name, rest)?;
                    forget_if_empty(&mut keys, key);
                    reply
                }
                (name, _) => return Err(format!("the double does not know the command {name}")),
            },
        )
    }

    /// What may have happened to the server before this command.
    fn strike(&self) {
        let now = self.world.elapsed();
        let world = &self.world;
        if self
            .away
            .may_begin(world, Fault::RedisEmpty, "redis", 5_000)
        {
            self.keys.lock().clear();
            self.scripts.lock().clear();
        }
        let mut replica = self.replica.lock();
        if self.world.strikes(Fault::RedisOld, "redis") {
            *self.keys.lock() = replica.1.clone();
            self.scripts.lock().clear();
            let soon = self.world.after(200, 5_000);
            self.deleted_at.store(soon, Relaxed);
        }
        let deleted_at = self.deleted_at.load(Relaxed);
        if deleted_at > 0 && now >= deleted_at {
            self.world.step("an operator deletes the keys of Redis");
            self.keys.lock().clear();
            self.deleted_at.store(0, Relaxed);
        }
        if now - replica.0 >= REPLICA_MILLIS {
            *replica = (now, self.keys.lock().clone());
        }
    }

    async fn call(self: Arc<Self>, words: Vec<String>) -> RedisResult<Value> {
        let place = words[0].clone();
        pause(self.world.between(1, 10)).await;
        if self.world.strikes(Fault::RedisSlow, &place) {
            pause(self.world.between(100, 3_000)).await;
        }
        self.strike();
        if self.away.millis_left(&self.world) > 0 || self.world.strikes(Fault::RedisFails, &place) {
            return Err(failed("the connection broke before the command"));
        }
        let answer = self.answer(&words);
        match self.world.strikes(Fault::RedisAnswerLost, &place) {
            true => Err(failed("the connection broke after the command")),
            false => answer,
        }
    }
}

/// Redis as a process sees it. `engines` is the server's host: a command that was sent is executed even if its caller dies.
pub struct RedisClient {
    pub double: Arc<RedisDouble>,
    pub engines: tokio::runtime::Handle,
}

impl RedisEngine for RedisClient {
    fn execute(&self, command: &Cmd) -> BoxFuture<'static, RedisResult<Value>> {
        let words = words_of(command);
        self.double.world.may_pause(&words[0]);
        let called = self.engines.spawn(Arc::clone(&self.double).call(words));
        async move {
            called
                .await
                .unwrap_or_else(|error| Err(failed(&error.to_string())))
        }
        .boxed()
    }
}

fn words_of(command: &Cmd) -> Vec<String> {
    let words = command.args_iter().map(|word| match word {
        Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => "0".to_owned(),
    });
    words.collect()
}

fn failed(reason: &str) -> RedisError {
    (ErrorKind::Io, "no answer", reason.to_owned()).into()
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn integer(is_true: bool) -> Value {
    Value::Int(i64::from(is_true))
}

fn number(number: f64) -> String {
    if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

fn text_of(value: &LuaValue) -> mlua::Result<String> {
    match value {
        LuaValue::String(text) => Ok(text.to_string_lossy()),
        LuaValue::Integer(whole) => Ok(whole.to_string()),
        LuaValue::Number(value) => Ok(number(*value)),
        other => Err(mlua::Error::runtime(format!(
            "no argument of a command: {other:?}"
        ))),
    }
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Int(whole) => LuaValue::Number(*whole as f64),
        Value::BulkString(bytes) => LuaValue::String(lua.create_string(bytes)?),
        Value::Array(items) => {
            let items = items.iter().map(|item| to_lua(lua, item));
            LuaValue::Table(lua.create_sequence_from(items.collect::<mlua::Result<Vec<_>>>()?)?)
        }
        Value::Okay => LuaValue::String(lua.create_string("OK")?),
        _ => LuaValue::Boolean(false),
    })
}

/// As Redis converts what a script returns.
fn from_lua(value: &LuaValue) -> mlua::Result<Value> {
    Ok(match value {
        LuaValue::Integer(whole) => Value::Int(*whole),
        LuaValue::Number(number) => Value::Int(*number as i64),
        LuaValue::Boolean(true) => Value::Int(1),
        LuaValue::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        LuaValue::Table(table) => {
            let items = table.sequence_values::<LuaValue>();
            Value::Array(
                items
                    .map(|item| from_lua(&item?))
                    .collect::<mlua::Result<_>>()?,
            )
        }
        _ => Value::Nil,
    })
}
