//! What the commands on hashes and sorted sets do.

use std::collections::BTreeMap;

use redis::Value;

use super::{Entry, Keys, bulk, integer, number};

pub(super) fn hash<'a>(keys: &'a mut Keys, key: &str) -> &'a mut BTreeMap<String, String> {
    let entry = keys
        .entry(key.to_owned())
        .or_insert_with(|| Entry::Hash(BTreeMap::new()));
    match entry {
        Entry::Hash(fields) => fields,
        other => panic!("{key} is no hash: {other:?}"),
    }
}

pub(super) fn sorted<'a>(keys: &'a mut Keys, key: &str) -> &'a mut BTreeMap<String, f64> {
    let entry = keys
        .entry(key.to_owned())
        .or_insert_with(|| Entry::Sorted(BTreeMap::new()));
    match entry {
        Entry::Sorted(members) => members,
        other => panic!("{key} is no sorted set: {other:?}"),
    }
}

pub(super) fn forget_if_empty(keys: &mut Keys, key: &str) {
    let is_empty = match keys.get(key) {
        Some(Entry::Hash(fields)) => fields.is_empty(),
        Some(Entry::Sorted(members)) => members.is_empty(),
        Some(Entry::Text(_)) | None => false,
    };
    if is_empty {
        keys.remove(key);
    }
}

pub(super) fn hash_command(
    fields: &mut BTreeMap<String, String>,
    name: &str,
    words: &[&str],
) -> Value {
    let value = |field: &str| fields.get(field).map_or(Value::Nil, |text| bulk(text));
    match name {
        "HGET" => value(words[0]),
        "HMGET" => Value::Array(words.iter().map(|field| value(field)).collect()),
        "HLEN" => Value::Int(fields.len() as i64),
        "HEXISTS" => integer(fields.contains_key(words[0])),
        "HDEL" => Value::Int(
            words
                .iter()
                .filter(|field| fields.remove(**field).is_some())
                .count() as i64,
        ),
        "HSET" => {
            let before = fields.len();
            let pairs = words
                .chunks(2)
                .map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
            fields.extend(pairs);
            Value::Int((fields.len() - before) as i64)
        }
        // One page holds everything.
        _ => {
            let all = fields
                .iter()
                .flat_map(|(field, value)| [bulk(field), bulk(value)]);
            Value::Array(vec![bulk("0"), Value::Array(all.collect())])
        }
    }
}

pub(super) fn sorted_command(
    members: &mut BTreeMap<String, f64>,
    name: &str,
    words: &[&str],
) -> Value {
    match name {
        "ZADD" => {
            let before = members.len();
            let pairs = words
                .chunks(2)
                .map(|pair| (pair[1].to_owned(), pair[0].parse().unwrap()));
            members.extend(pairs);
            Value::Int((members.len() - before) as i64)
        }
        "ZREM" => Value::Int(
            words
                .iter()
                .filter(|it| members.remove(**it).is_some())
                .count() as i64,
        ),
        _ => range(
            members,
            name == "ZRANGEBYSCORE" || words.contains(&"BYSCORE"),
            words,
        ),
    }
}

/// `ZRANGE … BYSCORE LIMIT`, `ZRANGEBYSCORE … LIMIT`, or by rank, from the first.
fn range(members: &BTreeMap<String, f64>, is_by_score: bool, words: &[&str]) -> Value {
    let mut all: Vec<(&String, f64)> = members
        .iter()
        .map(|(member, score)| (member, *score))
        .collect();
    all.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(other.0)));
    let bound = |text: &str| -> (f64, bool) {
        let (text, is_open) = text
            .strip_prefix('(')
            .map_or((text, false), |text| (text, true));
        (text.parse().unwrap(), is_open)
    };
    if is_by_score {
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
    let items = all.into_iter().flat_map(|(member, score)| {
        let score = with_scores.then(|| bulk(&number(score)));
        [Some(bulk(member)), score].into_iter().flatten()
    });
    Value::Array(items.collect())
}
