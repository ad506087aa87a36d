//! The SQL that SQLite and PostgreSQL have in common: lists of columns, and the query that finds rows.

use serde_json::Value;

use crate::{
    record::{Key, Kind, Table},
    store::Find,
};

/// What differs between the engines in a query.
pub(crate) struct Dialect {
    /// The parameter of this number as a value of a column's type.
    pub(crate) parameter: fn(Kind, usize) -> String,
    /// Stands before a column whose index must not be used.
    pub(crate) no_index: &'static str,
}

/// A parameter, with the type of the column that it is compared with.
pub(crate) type Parameter = (Kind, Value);

pub(crate) fn columns(table: &Table) -> String {
    let names = table.columns.iter().map(|it| format!("\"{}\"", it.name));
    names.collect::<Vec<_>>().join(", ")
}

/// The query of `find` with its parameters. `columns` is what it selects.
pub(crate) fn find_query(
    find: &Find,
    columns: &str,
    dialect: &Dialect,
) -> (String, Vec<Parameter>) {
    let (table, name, key) = (find.table, find.table.name, find.table.key);
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut parameter = |kind, value| {
        parameters.push((kind, value));
        (dialect.parameter)(kind, parameters.len())
    };
    let mut wheres = vec!["TRUE".to_owned()];
    match &find.equals {
        None => {}
        Some((column, Value::Null)) => wheres.push(format!("\"{column}\" IS NULL")),
        Some((column, value)) => {
            let value = parameter(table.kind_of(column), value.clone());
            wheres.push(format!("\"{column}\" = {value}"));
        }
    }
    if let Some((column, from, to)) = find.within {
        for (comparison, bound) in [(">=", from), ("<", to)] {
            let bound = parameter(Kind::Text, bound.to_string().into());
            wheres.push(format!("\"{column}\" {comparison} {bound}"));
        }
    }
    wheres.extend(find.only.map(|predicate| format!("({predicate})")));
    let (beyond, order) = match find.newest_first {
        true => ("<", "DESC"),
        false => (">", "ASC"),
    };
    // A range of times is to be found by its own index, not by walking the keys.
    let no_index = find.within.map_or("", |_| dialect.no_index);
    if let Some(after) = &find.after {
        let after = match after {
            Key::Integer(number) => Value::from(*number),
            Key::Text(text) => Value::from(text.as_str()),
        };
        let after = parameter(table.kind_of(key), after);
        wheres.push(format!("{no_index}\"{key}\" {beyond} {after}"));
    }
    let wheres = wheres.join(" AND ");
    let limit = find.limit;
    let text = format!(
        "SELECT {columns} FROM \"{name}\" WHERE {wheres} ORDER BY {no_index}\"{key}\" {order} LIMIT {limit}"
    );
    (text, parameters)
}
