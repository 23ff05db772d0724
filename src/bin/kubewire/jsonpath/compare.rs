//! Values beside each other: in flow two, out comes whether a comparison holds, as Go's templates
//! have it.

use std::{cmp::Ordering, ops::Range};

use regex::Regex;
use serde_json::Value;

use super::parse::Operator;

impl Operator {
    /// Whether it holds (`k8s.io/client-go/third_party/forked/golang/template/funcs.go`).
    pub(super) fn holds(&self, left: &Value, right: &Value) -> Result<bool, String> {
        if let Self::Matches = self {
            let (Value::String(text), Value::String(pattern)) = (left, right) else {
                return Err("regexp search only support string".to_owned());
            };
            let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
            return Ok(pattern.is_match(text));
        }
        let order = order(left, right)?;
        if left.is_boolean() && !matches!(self, Self::Equal | Self::NotEqual) {
            return Err("invalid type for comparison".to_owned());
        }
        Ok(match self {
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEqual => order.is_ge(),
            Self::Equal => order.is_eq(),
            Self::NotEqual | Self::Matches => order.is_ne(),
        })
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, String> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Ok(left.cmp(&right)),
            (None, None) => Ok(left
                .as_f64()
                .partial_cmp(&right.as_f64())
                .unwrap_or(Ordering::Equal)),
            _ => Err("incompatible types for comparison".to_owned()),
        },
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A float as Go writes it: the shortest digits, and outside of the `plain` numbers with an exponent
/// of so many digits at least.
pub(crate) fn float(value: f64, plain: Range<f64>, width: usize) -> String {
    if value == 0.0 || plain.contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>width$}")
}
