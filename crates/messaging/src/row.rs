//! Rows as the stores pass them: the values of a table's columns, in their order. Serde converts between structs and rows
//! by the names of the columns.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    de::{DeserializeOwned, value::MapDeserializer},
    ser::{Impossible, SerializeStruct},
};
use serde_json::{Error, Value};

use crate::{
    Rejection,
    record::{Key, Table},
};

#[derive(Debug, Clone)]
pub struct Row {
    table: &'static Table,
    values: Vec<Value>,
}

impl Row {
    /// A row as read from a store.
    pub(crate) fn new(table: &'static Table, values: Vec<Value>) -> Self {
        Self { table, values }
    }

    /// The row of a record or entry.
    ///
    /// # Panics
    /// If the struct has a field that is no column: a bug that its first use shows.
    pub(crate) fn of<T: Serialize>(table: &'static Table, value: &T) -> Self {
        let writer = RowWriter {
            table,
            values: vec![Value::Null; table.columns.len()],
            next: 0,
        };
        let values = value
            .serialize(writer)
            .expect("records and entries are structs of their table's columns");
        Self { table, values }
    }

    /// # Errors
    /// A [`Rejection`] if the stored row does not match the struct.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        let names = self.table.columns.iter().map(|column| column.name);
        T::deserialize(MapDeserializer::<_, Error>::new(names.zip(&self.values))).map_err(|error| {
            Rejection::new(format_args!(
                "cannot read a row of {}: {error}",
                self.table.name
            ))
        })
    }

    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let place = self.table.columns.iter().position(|it| it.name == column)?;
        self.values.get(place)
    }

    /// Sets one value; for a column that is no field.
    pub fn set(&mut self, column: &str, value: Value) {
        if let Some(place) = self.table.columns.iter().position(|it| it.name == column) {
            self.values[place] = value;
        }
    }

    #[must_use]
    pub fn table(&self) -> &'static Table {
        self.table
    }

    pub(crate) fn key(&self) -> Option<Key> {
        match self.get(self.table.key)? {
            Value::Number(number) => number.as_i64().map(Key::Integer),
            Value::String(text) => Some(Key::Text(text.clone())),
            _ => None,
        }
    }

    /// In the order of the table's columns.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

impl std::ops::Index<&str> for Row {
    type Output = Value;

    fn index(&self, column: &str) -> &Value {
        self.get(column).expect("the table has this column")
    }
}

/// Serializes the fields of one struct; rejects every other type.
struct RowWriter {
    table: &'static Table,
    values: Vec<Value>,
    /// The likely column of the next field: fields and columns usually have one order.
    next: usize,
}

impl SerializeStruct for RowWriter {
    type Ok = Vec<Value>;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let columns = self.table.columns;
        let is_next = columns
            .get(self.next)
            .is_some_and(|column| column.name == name);
        let place = if is_next {
            Some(self.next)
        } else {
            columns.iter().position(|column| column.name == name)
        };
        let place = place
            .ok_or_else(|| not_a_row(format_args!("{} has no column {name}", self.table.name)))?;
        self.values[place] = serde_json::to_value(value)?;
        self.next = place + 1;
        Ok(())
    }

    fn end(self) -> Result<Vec<Value>, Error> {
        Ok(self.values)
    }
}

fn not_a_row(detail: impl Display) -> Error {
    serde::ser::Error::custom(detail)
}

type NotARow = Impossible<Vec<Value>, Error>;

impl Serializer for RowWriter {
    type Ok = Vec<Value>;
    type Error = Error;
    type SerializeSeq = NotARow;
    type SerializeTuple = NotARow;
    type SerializeTupleStruct = NotARow;
    type SerializeTupleVariant = NotARow;
    type SerializeMap = NotARow;
    type SerializeStruct = Self;
    type SerializeStructVariant = NotARow;

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_bool(self, _: bool) -> Result<Self::Ok, Error> {
        Err(not_a_row("a bool is not a row"))
    }
    fn serialize_i8(self, _: i8) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_i16(self, _: i16) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_i32(self, _: i32) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_i64(self, _: i64) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_u8(self, _: u8) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_u16(self, _: u16) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_u32(self, _: u32) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_u64(self, _: u64) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_f32(self, _: f32) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_f64(self, _: f64) -> Result<Self::Ok, Error> {
        Err(not_a_row("a number is not a row"))
    }
    fn serialize_char(self, _: char) -> Result<Self::Ok, Error> {
        Err(not_a_row("a character is not a row"))
    }
    fn serialize_str(self, _: &str) -> Result<Self::Ok, Error> {
        Err(not_a_row("a text is not a row"))
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Self::Ok, Error> {
        Err(not_a_row("bytes are not a row"))
    }
    fn serialize_none(self) -> Result<Self::Ok, Error> {
        Err(not_a_row("`None` is not a row"))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Self::Ok, Error> {
        Err(not_a_row("a unit is not a row"))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Self::Ok, Error> {
        Err(not_a_row("a unit is not a row"))
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Self::Ok, Error> {
        Err(not_a_row("a variant is not a row"))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Self::Ok, Error> {
        Err(not_a_row("a variant is not a row"))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<NotARow, Error> {
        Err(not_a_row("a list is not a row"))
    }
    fn serialize_tuple(self, _: usize) -> Result<NotARow, Error> {
        Err(not_a_row("a tuple is not a row"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<NotARow, Error> {
        Err(not_a_row("a tuple is not a row"))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<NotARow, Error> {
        Err(not_a_row("a variant is not a row"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<NotARow, Error> {
        Err(not_a_row("a map is not a row"))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<NotARow, Error> {
        Err(not_a_row("a variant is not a row"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::Column;

    const TABLE: &Table = &Table {
        name: "thing",
        columns: &[
            Column::integer("id"),
            Column::text("name").null(),
            Column::json("parts"),
        ],
        key: "id",
        constraints: &[],
        indexes: &[],
    };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        parts: Vec<i64>,
        id: i64,
        name: Option<String>,
    }

    #[test]
    fn a_struct_survives_the_way_to_a_row_and_back_whatever_the_order_of_its_fields() {
        let thing = Thing {
            parts: vec![1, 2],
            id: 7,
            name: None,
        };
        let row = Row::of(TABLE, &thing);
        assert_eq!(
            row.values(),
            [Value::from(7), Value::Null, Value::from(vec![1, 2])]
        );
        assert_eq!(row.read::<Thing>(), Ok(thing));
    }

    #[test]
    fn a_row_that_does_not_match_the_struct_is_rejected_by_its_table() {
        let row = Row::new(TABLE, vec![Value::from("seven"), Value::Null, Value::Null]);
        let rejection = row.read::<Thing>().unwrap_err();
        assert!(rejection.reason.contains("a row of thing"), "{rejection}");
    }
}
