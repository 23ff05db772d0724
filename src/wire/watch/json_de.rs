//! JSON for serde, which does not look at what nobody asked for.
//!
//! In goes the text of an object; out comes any serde type. A value that the type does not name is
//! passed over to its end, its brackets counted and its strings skipped, at a fraction of what it
//! costs to see that every token of it is valid: a struct of a few fields pays for these fields.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
    value::{MapAccessDeserializer, StrDeserializer},
};

use super::{
    Encoding::Json,
    EventError,
    json::{self, skip_space, skip_value},
};
use crate::limits;

/// Reads the value that the text begins with.
pub(super) fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, EventError> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    T::deserialize(&mut reader).map_err(|error| match error {
        EventError::Decode(what) => EventError::Decode(format!("{what} at byte {}", reader.at)),
        error => error,
    })
}

struct Reader<'de> {
    text: &'de str,
    /// Where the next token is looked for.
    at: usize,
    depth: usize,
}

/// What reads one token of serde_json's.
fn leaf(text: &str) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(text)
}

fn wrong(error: impl std::fmt::Display) -> EventError {
    EventError::Decode(error.to_string())
}

impl<'de> Reader<'de> {
    /// The next byte that is no space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        self.at = skip_space(self.text.as_bytes(), self.at);
        self.text.as_bytes().get(self.at).copied()
    }

    /// The value at hand, passed over.
    fn skip(&mut self) -> Result<&'de str, EventError> {
        self.peek();
        let start = self.at;
        self.at += skip_value(&self.text.as_bytes()[start..])?;
        Ok(&self.text[start..self.at])
    }

    #[inline]
    fn literal<T>(&mut self, literal: &str, value: T) -> Result<T, EventError> {
        match self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            true => {
                self.at += literal.len();
                Ok(value)
            }
            false => Err(Json.malformed("a value should stand here")),
        }
    }

    /// The string that begins here: between its quotes, or with them if there are escapes in it.
    #[inline]
    fn string(&mut self) -> Result<Text<'de>, EventError> {
        let start = self.at;
        let (escaped, len) = json::string_len(&self.text.as_bytes()[start..])?;
        self.at += len;
        Ok(match escaped {
            false => Text::Plain(&self.text[start + 1..self.at - 1]),
            true => Text::Escaped(&self.text[start..self.at]),
        })
    }

    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, EventError> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let len = rest.bytes().take_while(|byte| is_part(byte)).count();
        self.at += len;
        let mut number = leaf(&rest[..len]);
        let value = number.deserialize_any(visitor).map_err(wrong)?;
        number.end().map_err(wrong)?;
        Ok(value)
    }

    /// Reads what stands between brackets, and the closing one.
    #[inline]
    fn nested<T>(
        &mut self,
        close: u8,
        read: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, EventError>,
    ) -> Result<T, EventError> {
        if self.depth == limits::WATCH_DEPTH {
            return Err(Json.malformed("the values are nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        let mut items = Items {
            reader: self,
            close,
            first: true,
        };
        let value = read(&mut items)?;
        // Who reads a pair stops behind its second.
        if items.next()? {
            return Err(EventError::custom("there are more values than expected"));
        }
        self.depth -= 1;
        self.at += 1;
        Ok(value)
    }
}

enum Text<'de> {
    Plain(&'de str),
    Escaped(&'de str),
}

impl<'de> Text<'de> {
    #[inline]
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        match self {
            Self::Plain(text) => visitor.visit_borrowed_str(text),
            Self::Escaped(text) => leaf(text).deserialize_str(visitor).map_err(wrong),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = EventError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        match self.peek() {
            Some(b'"') => self.string()?.visit(visitor),
            Some(b'{') => self.nested(b'}', |items| visitor.visit_map(items)),
            Some(b'[') => self.nested(b']', |items| visitor.visit_seq(items)),
            Some(b'-' | b'0'..=b'9') => self.number(visitor),
            Some(b't') => self
                .literal("true", true)
                .and_then(|it| visitor.visit_bool(it)),
            Some(b'f') => self
                .literal("false", false)
                .and_then(|it| visitor.visit_bool(it)),
            _ => self.literal("null", ()).and_then(|()| visitor.visit_unit()),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        match self.peek() {
            Some(b'n') => self.literal("null", ()).and_then(|()| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, EventError> {
        // A type of serde_json's own, such as `RawValue`.
        if name.starts_with("$serde_json::") {
            let value = self.skip()?;
            return leaf(value)
                .deserialize_newtype_struct(name, visitor)
                .map_err(wrong);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, EventError> {
        match self.peek() {
            Some(b'"') => self.string()?.visit_enum(visitor),
            // With content: an object with one member.
            Some(b'{') => self.nested(b'}', |items| match items.reader.peek() {
                Some(b'}') => Err(EventError::custom("a variant should stand here")),
                _ => visitor.visit_enum(MapAccessDeserializer::new(items)),
            }),
            _ => Err(EventError::custom("a variant should stand here")),
        }
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

/// What stands between brackets.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    close: u8,
    first: bool,
}

impl Items<'_, '_> {
    /// Goes to the next item; whether there is one.
    #[inline]
    fn next(&mut self) -> Result<bool, EventError> {
        let next = self.reader.peek();
        if next == Some(self.close) {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.first, false) {
            if next != Some(b',') {
                return Err(Json.malformed("a comma or a closing bracket should follow"));
            }
            self.reader.at += 1;
            if self.reader.peek() == Some(self.close) {
                return Err(Json.malformed("something should follow a comma"));
            }
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = EventError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, EventError> {
        match self.next()? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = EventError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, EventError> {
        match self.next()? {
            true => seed.deserialize(Key(self.reader)).map(Some),
            false => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, EventError> {
        self.reader.colon()?;
        seed.deserialize(&mut *self.reader)
    }
}

impl Reader<'_> {
    #[inline]
    fn colon(&mut self) -> Result<(), EventError> {
        if self.peek() != Some(b':') {
            return Err(Json.malformed("a colon should follow the name of a member"));
        }
        self.at += 1;
        Ok(())
    }
}

/// The name of a member, which is a string, and what its type makes of it.
struct Key<'a, 'de>(&'a mut Reader<'de>);

/// Numbers and booleans as names.
macro_rules! in_quotes {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
            match self.0.string()? {
                Text::Plain(text) => {
                    let mut inside = leaf(text);
                    let value = inside.$method(visitor).map_err(wrong)?;
                    inside.end().map_err(wrong)?;
                    Ok(value)
                }
                Text::Escaped(_) => Err(EventError::custom("a name should be a number")),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'_, 'de> {
    type Error = EventError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.0.string()?.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, EventError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, EventError> {
        self.0.string()?.visit_enum(visitor)
    }

    in_quotes! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

impl<'de> Text<'de> {
    /// A variant without content.
    fn visit_enum<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        let text: String;
        let name: StrDeserializer<'_, EventError> = match self {
            Self::Plain(name) => name.into_deserializer(),
            Self::Escaped(name) => {
                text = serde_json::from_str(name).map_err(wrong)?;
                text.as_str().into_deserializer()
            }
        };
        visitor.visit_enum(name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde_json::Value;

    use super::*;

    fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, EventError> {
        from_str(text)
    }

    /// What serde_json makes of the same text.
    fn same<T>(text: &str)
    where
        T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let expected: T = serde_json::from_str(text).unwrap();
        assert_eq!(read::<T>(text).unwrap(), expected, "{text}");
        // What follows is not its business.
        assert_eq!(read::<T>(&format!("{text} }}")).unwrap(), expected);
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Kind {
        Plain,
        One(u8),
        Two(u8, String),
        Named { a: Option<i64>, b: Vec<bool> },
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i32),
        Text(String),
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        for text in [
            r#"{"a":[1,-2,0.5,1e3,-0,18446744073709551615,1e30,null,true,false],"b":{},"c":[]}"#,
            " \t\r\n[ { \"a\" : [ ] , \"b\" : \"\" } , [ [ ] ] ] ",
            r#"{"q":"\"\\\/\b\f\n\r\t\u0041\ud83e\udd80","\u0061":"ünï {[\"}"}"#,
            "\"alone\"",
            "7",
        ] {
            same::<Value>(text);
        }
        same::<Vec<Kind>>(
            r#"["plain",{"one":1},{"two":[2,"x"]},{"named":{"a":null,"b":[true],"c":{}}},{"plain":null},"p\u006cain"]"#,
        );
        same::<Flat>(r#"{"x":1,"name":"a","y":{"z":[]}}"#);
        same::<Vec<Either>>(r#"[1,"a",-3]"#);
        same::<HashMap<u32, (i8, f64)>>(r#"{"1":[1,2],"22":[-3,4.5]}"#);
        same::<BTreeMap<bool, Option<char>>>(r#"{"true":"x","false":null}"#);
        same::<(String, Option<Option<u8>>, ())>(r#"["a",1,null]"#);
    }

    #[test]
    fn what_is_borrowed_is_borrowed() {
        #[derive(serde::Deserialize)]
        struct Borrowed<'a> {
            name: &'a str,
            #[serde(borrow)]
            text: std::borrow::Cow<'a, str>,
        }
        let text = String::from(r#"{"skip":{"name":"}"},"name":"box","text":"a\nb"}"#);
        let read: Borrowed<'_> = read(&text).unwrap();
        assert_eq!((read.name, &*read.text), ("box", "a\nb"));
        assert!(text.as_bytes().as_ptr_range().contains(&read.name.as_ptr()));
    }

    #[test]
    fn what_is_read_and_malformed_is_an_error_and_what_is_passed_over_is_not_read() {
        for text in [
            "",
            "{",
            "[1,",
            "[1 2]",
            "[,1]",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "tru",
            "nul",
            "01",
            "1.",
            "-",
            "+1",
            "\"a",
            "\"\\x\"",
            "[1}",
            "{\"a\":1]",
            "}",
            "1-2",
        ] {
            assert!(read::<Value>(text).is_err(), "{text}");
        }
        assert!(read::<(u8, u8)>("[1,2,3]").is_err());
        assert!(read::<(u8, u8)>("[1]").is_err());
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read::<Value>(&deep(limits::WATCH_DEPTH)).is_ok());
        assert!(read::<Value>(&deep(limits::WATCH_DEPTH + 1)).is_err());

        #[derive(Debug, serde::Deserialize)]
        struct One {
            #[allow(dead_code, reason = "it is read")]
            a: u8,
        }
        assert!(read::<One>(r#"{"b":[tru,01],"a":1}"#).is_ok());
        assert!(read::<One>(r#"{"b":[[{"a":2}],"a":1}"#).is_err());
        let error = read::<One>(r#"{"b":{},"a":null}"#).unwrap_err().to_string();
        assert!(
            error.ends_with("invalid type: null, expected u8 at byte 16"),
            "{error}"
        );
    }
}
