//! The texts of the statements that write declared tables.

use crate::{record::Table, sql::columns};

pub(super) fn insert_text(table: &Table) -> String {
    let places = 1..=table.columns.len();
    let places: Vec<_> = places.map(|place| format!("?{place}")).collect();
    // An existing row of this key is another writer's change: a conflict. Any other broken rule is the commit's fault.
    format!(
        "INSERT INTO \"{}\" ({}) VALUES ({}) ON CONFLICT (\"{}\") DO NOTHING",
        table.name,
        columns(table),
        places.join(", "),
        table.key
    )
}

pub(super) fn delete_text(table: &Table) -> String {
    format!(
        "DELETE FROM \"{}\" WHERE \"{}\" = ?1 AND version = coalesce(?2, version)",
        table.name, table.key
    )
}

pub(super) fn update_text(table: &Table) -> String {
    let mut sets = Vec::new();
    let mut key_place = 0;
    for (place, column) in table.columns.iter().enumerate() {
        if column.name == table.key {
            key_place = place + 1;
        } else {
            sets.push(format!("\"{}\" = ?{}", column.name, place + 1));
        }
    }
    let expected_place = table.columns.len() + 1;
    format!(
        "UPDATE \"{}\" SET {} WHERE \"{}\" = ?{key_place} AND version = ?{expected_place}",
        table.name,
        sets.join(", "),
        table.key
    )
}
