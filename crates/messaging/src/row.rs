//! Rows as the stores pass them: the values of a table's columns, in their order. A struct becomes a row, and a row a
//! struct, by serde and the names of the columns.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    de::{DeserializeOwned, value::MapDeserializer},
    ser::{Impossible, SerializeStruct},
};
use serde_json::{Error, Value};

use crate::{Rejection, record::Table};

#[derive(Debug, Clone)]
pub struct Row {
    table: &'static Table,
    values: Vec<Value>,
}

impl Row {
    /// A row as it was read.
    pub(crate) fn new(table: &'static Table, values: Vec<Value>) -> Self {
        Self { table, values }
    }

    /// The row of a record or entry.
    ///
    /// # Panics
    /// Where the struct has a field that is no column: a fault of the program that its first use shows.
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
    /// A [`Rejection`] where the stored row is not what the struct says.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        let names = self.table.columns.iter().map(|column| column.name);
        T::deserialize(MapDeserializer::<_, Error>::new(names.zip(&self.values))).map_err(|error| {
            Rejection::new(format_args!(
                "a row of {} cannot be read: {error}",
                self.table.name
            ))
        })
    }

    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let place = self.table.columns.iter().position(|it| it.name == column)?;
        self.values.get(place)
    }

    /// Changes one value; for what the struct does not know.
    pub fn set(&mut self, column: &str, value: Value) {
        if let Some(place) = self.table.columns.iter().position(|it| it.name == column) {
            self.values[place] = value;
        }
    }

    #[must_use]
    pub fn table(&self) -> &'static Table {
        self.table
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

/// Takes the fields of one struct; nothing else is a row.
struct RowWriter {
    table: &'static Table,
    values: Vec<Value>,
    /// Where the next field most likely belongs: fields and columns mostly have one order.
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
            .ok_or_else(|| no_row(format_args!("{} has no column {name}", self.table.name)))?;
        self.values[place] = serde_json::to_value(value)?;
        self.next = place + 1;
        Ok(())
    }

    fn end(self) -> Result<Vec<Value>, Error> {
        Ok(self.values)
    }
}

fn no_row(detail: impl Display) -> Error {
    serde::ser::Error::custom(detail)
}

type No = Impossible<Vec<Value>, Error>;

impl Serializer for RowWriter {
    type Ok = Vec<Value>;
    type Error = Error;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = Self;
    type SerializeStructVariant = No;

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_bool(self, _: bool) -> Result<Self::Ok, Error> {
        Err(no_row("a bool is no row"))
    }
    fn serialize_i8(self, _: i8) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_i16(self, _: i16) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_i32(self, _: i32) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_i64(self, _: i64) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_u8(self, _: u8) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_u16(self, _: u16) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_u32(self, _: u32) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_u64(self, _: u64) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_f32(self, _: f32) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_f64(self, _: f64) -> Result<Self::Ok, Error> {
        Err(no_row("a number is no row"))
    }
    fn serialize_char(self, _: char) -> Result<Self::Ok, Error> {
        Err(no_row("a character is no row"))
    }
    fn serialize_str(self, _: &str) -> Result<Self::Ok, Error> {
        Err(no_row("a text is no row"))
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Self::Ok, Error> {
        Err(no_row("bytes are no row"))
    }
    fn serialize_none(self) -> Result<Self::Ok, Error> {
        Err(no_row("nothing is no row"))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Self::Ok, Error> {
        Err(no_row("a unit is no row"))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Self::Ok, Error> {
        Err(no_row("a unit is no row"))
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Self::Ok, Error> {
        Err(no_row("a variant is no row"))
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
        Err(no_row("a variant is no row"))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<No, Error> {
        Err(no_row("a list is no row"))
    }
    fn serialize_tuple(self, _: usize) -> Result<No, Error> {
        Err(no_row("a tuple is no row"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<No, Error> {
        Err(no_row("a tuple is no row"))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<No, Error> {
        Err(no_row("a variant is no row"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<No, Error> {
        Err(no_row("a map is no row"))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<No, Error> {
        Err(no_row("a variant is no row"))
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
    fn a_struct_becomes_a_row_and_a_struct_again_whatever_the_order_of_its_fields() {
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
    fn a_row_that_is_not_the_struct_is_named() {
        let row = Row::new(TABLE, vec![Value::from("seven"), Value::Null, Value::Null]);
        let rejection = row.read::<Thing>().unwrap_err();
        assert!(rejection.reason.contains("a row of thing"), "{rejection}");
    }
}
