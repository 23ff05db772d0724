//! What definitions ask of values of the right type: in flow values and their schemas, out come the
//! API server's words for what is wrong (`k8s.io/kube-openapi/pkg/validation`).

use regex::Regex;
use serde_json::Value;

use super::{schema::check, validation};
use crate::testing::requests::target::Invalid;

/// The limits that a schema sets to a value of the right type
/// (`k8s.io/kube-openapi/pkg/validation/{errors/schema,validate}`).
pub(super) fn limits(value: &Value, schema: &Value, path: &str, faults: &mut Vec<Invalid>) {
    let (of, size) = match value {
        Value::String(text) => ("Length", text.chars().count() as f64),
        Value::Array(items) => ("Items", items.len() as f64),
        Value::Object(map) => ("Properties", map.len() as f64),
        Value::Number(number) => ("imum", number.as_f64().unwrap_or_default()),
        _ => ("", 0.0),
    };
    let (spelled, is_number) = (value.to_string(), of == "imum");
    let bound = |which: &str| schema[format!("{which}{of}")].as_f64();
    let excludes = |which: &str| is_number && schema[format!("exclusive{which}imum")] == true;
    let least = bound("min").filter(|least| size < *least || size == *least && excludes("Min"));
    let most = bound("max").filter(|most| size > *most || size == *most && excludes("Max"));
    let less = least.map(|least| match of {
        "imum" if excludes("Min") => format!("be greater than {least}"),
        "imum" => format!("be greater than or equal to {least}"),
        "Length" => format!("be at least {least} chars long"),
        _ => format!("have at least {least} {}", of.to_lowercase()),
    });
    let over = most.filter(|_| is_number);
    let over = over.map(|most| match excludes("Max") {
        true => format!("be less than {most}"),
        false => format!("be less than or equal to {most}"),
    });
    let factor = schema["multipleOf"].as_f64().filter(|_| is_number);
    let odd = factor.filter(|factor| *factor > 0.0 && (size / factor).fract() != 0.0);
    let odd = odd.map(|factor| format!("be a multiple of {factor}"));
    let pattern = schema["pattern"].as_str().filter(|pattern| {
        let text = value.as_str();
        text.is_some_and(|text| Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text)))
    });
    let strange = pattern.map(|pattern| format!("match '{pattern}'"));
    // Of what has too few parts it is said how many.
    let given = match of {
        "Items" | "Properties" => size.to_string(),
        _ => spelled.clone(),
    };
    for why in [less, over, odd, strange].into_iter().flatten() {
        let why = format!("{path} in body should {why}");
        faults.push(Invalid::value(path, &given, &why));
    }
    faults.extend(most.filter(|_| !is_number).map(|most| {
        let items = if most == 1.0 { "item" } else { "items" };
        Invalid::new(
            path,
            match of {
                "Length" => format!("Too long: may not be more than {most} bytes"),
                _ => format!("Too many: {size}: must have at most {most} {items}"),
            },
        )
    }));
    if let (Value::String(text), Some(format)) = (value, schema["format"].as_str())
        && !validation::faults(format, text).is_empty()
    {
        let why = format!("{path} in body must be of type {format}: {value}");
        let reason = "FieldValueTypeInvalid";
        faults.push(Invalid {
            reason,
            ..Invalid::value(path, &spelled, &why)
        });
    }
    let number = value.as_f64().unwrap_or_default();
    if schema["format"] == "int32" && i32::try_from(number as i64).is_err() {
        let why = "Checked value must be of type integer with format int32 in";
        faults.push(Invalid::value("<nil>", "\"\"", &format!("{why} {path}")));
    }
    one_of(value, schema, path, faults);
}

/// Schemas of which all, any, one or none must hold.
pub(super) fn junctions(value: &Value, schema: &Value, path: &str, faults: &mut Vec<Invalid>) {
    let holds = |schema: &Value| {
        let mut found = Vec::new();
        check(value, schema, path, true, &mut found);
        found.is_empty()
    };
    let count = |name: &str| {
        let all = schema[name].as_array()?;
        Some((all.iter().filter(|schema| holds(schema)).count(), all.len()))
    };
    let mut invalid = |why: String| {
        let why = format!("\"{path}\" must {why}");
        faults.push(Invalid::value("<nil>", "\"\"", &why));
    };
    match count("oneOf") {
        None | Some((1, _)) => {}
        Some((0, _)) => {
            invalid("validate one and only one schema (oneOf). Found none valid".to_owned());
        }
        Some((several, _)) => invalid(format!(
            "validate one and only one schema (oneOf). Found {several} valid alternatives"
        )),
    }
    if count("anyOf").is_some_and(|(valid, _)| valid == 0) {
        invalid("validate at least one schema (anyOf)".to_owned());
    }
    if count("allOf").is_some_and(|(valid, all)| valid < all) {
        invalid("validate all the schemas (allOf)".to_owned());
    }
    if schema["not"].is_object() && holds(&schema["not"]) {
        invalid("not validate the schema (not)".to_owned());
    }
}

pub(super) fn one_of(value: &Value, schema: &Value, path: &str, faults: &mut Vec<Invalid>) {
    let values = schema["enum"].as_array();
    if let Some(values) = values.filter(|values| !values.contains(value)) {
        faults.push(Invalid::unsupported(path, &value.to_string(), values));
    }
}
