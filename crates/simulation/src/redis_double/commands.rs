//! What the commands on hashes and sorted sets do.

use std::collections::BTreeMap;

use redis::Value;

use super::{Entry, Keys, bulk, integer};

type Map = BTreeMap<String, String>;

pub(super) fn map<'a>(keys: &'a mut Keys, key: &str) -> &'a mut Map {
    let entry = keys.entry(key.to_owned());
    match entry.or_insert_with(|| Entry::Map(BTreeMap::new())) {
        Entry::Map(fields) => fields,
        other => panic!("{key} is no hash or sorted set: {other:?}"),
    }
}

pub(super) fn forget_if_empty(keys: &mut Keys, key: &str) {
    if matches!(keys.get(key), Some(Entry::Map(fields)) if fields.is_empty()) {
        keys.remove(key);
    }
}

pub(super) fn map_command(fields: &mut Map, name: &str, words: &[&str]) -> Result<Value, String> {
    let value = |field: &str| fields.get(field).map_or(Value::Nil, |text| bulk(text));
    Ok(match name {
        "HGET" => value(words[0]),
        "HMGET" => Value::Array(words.iter().map(|field| value(field)).collect()),
        "HLEN" => Value::Int(fields.len() as i64),
        "HEXISTS" => integer(fields.contains_key(words[0])),
        "HDEL" | "ZREM" => {
            let before = fields.len();
            fields.retain(|field, _| !words.contains(&field.as_str()));
            Value::Int((before - fields.len()) as i64)
        }
        "HSET" | "ZADD" => {
            let before = fields.len();
            for pair in words.chunks(2) {
                let (field, value) = match name {
                    "HSET" => (pair[0], pair[1]),
                    _ => (pair[1], pair[0]),
                };
                fields.insert(field.to_owned(), value.to_owned());
            }
            Value::Int((fields.len() - before) as i64)
        }
        // One page holds everything.
        "HSCAN" => {
            let all = fields
                .iter()
                .flat_map(|(it, value)| [bulk(it), bulk(value)]);
            Value::Array(vec![bulk("0"), Value::Array(all.collect())])
        }
        "ZRANGE" | "ZRANGEBYSCORE" => range(fields, name, words),
        _ => return Err(format!("the double does not know the command {name}")),
    })
}

/// `ZRANGE … BYSCORE LIMIT`, `ZRANGEBYSCORE … LIMIT`, or by rank, from the first.
fn range(members: &Map, name: &str, words: &[&str]) -> Value {
    let score = |text: &str| text.parse::<f64>().unwrap();
    let mut all: Vec<_> = members.iter().map(|(it, text)| (it, score(text))).collect();
    all.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(other.0)));
    let bound = |text: &str| match text.strip_prefix('(') {
        Some(text) => (score(text), true),
        None => (score(text), false),
    };
    if name == "ZRANGEBYSCORE" || words.contains(&"BYSCORE") {
        let ((from, after), (to, before)) = (bound(words[0]), bound(words[1]));
        all.retain(|(_, score)| {
            (*score > from || (!after && *score == from))
                && (*score < to || (!before && *score == to))
        });
    } else {
        let last: usize = words[1].parse().unwrap();
        all.truncate(last + 1);
    }
    if let Some(at) = words.iter().position(|word| *word == "LIMIT") {
        all.truncate(words[at + 2].parse().unwrap());
    }
    let with_scores = words.contains(&"WITHSCORES");
    let items = all.into_iter().flat_map(|(member, _)| {
        let score = with_scores.then(|| bulk(&members[member]));
        [Some(bulk(member)), score].into_iter().flatten()
    });
    Value::Array(items.collect())
}
