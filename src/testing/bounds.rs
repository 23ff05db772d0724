//! What definitions ask of values of the right type: in flow values and their schemas, out come the
//! API server's words for what is wrong (`k8s.io/kube-openapi/pkg/validation`).

use regex::Regex;
use serde_json::Value;

use super::{schema::check, target::Invalid, validation};

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
    let count = size.to_string();
    let bound = |which: &str| schema[format!("{which}{of}")].as_f64();
    let is_exclusive =
        |which: &str| of == "imum" && schema[format!("exclusive{which}imum")] == true;
    let is_less = |least: &f64| size < *least || size == *least && is_exclusive("Min");
    let is_more = |most: &f64| size > *most || size == *most && is_exclusive("Max");
    let spelled = value.to_string();
    let less = bound("min").filter(is_less).map(|least| match of {
        "imum" if is_exclusive("Min") => (&spelled, format!("be greater than {least}")),
        "imum" => (&spelled, format!("be greater than or equal to {least}")),
        "Length" => (&spelled, format!("be at least {least} chars long")),
        _ => (
            &count,
            format!("have at least {least} {}", of.to_lowercase()),
        ),
    });
    let more = bound("max").filter(is_more);
    let over = more
        .filter(|_| of == "imum")
        .map(|most| match is_exclusive("Max") {
            true => (&spelled, format!("be less than {most}")),
            false => (&spelled, format!("be less than or equal to {most}")),
        });
    let factor = schema["multipleOf"].as_f64().filter(|_| of == "imum");
    let odd = factor.filter(|factor| *factor > 0.0 && (size / factor).fract() != 0.0);
    let odd = odd.map(|factor| (&spelled, format!("be a multiple of {factor}")));
    let pattern = schema["pattern"].as_str().filter(|pattern| {
        let text = value.as_str();
        text.is_some_and(|text| Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text)))
    });
    let strange = pattern.map(|pattern| (&spelled, format!("match '{pattern}'")));
    for (value, why) in [less, over, odd, strange].into_iter().flatten() {
        let why = format!("{path} in body should {why}");
        faults.push(Invalid::value(path, value, &why));
    }
    faults.extend(more.filter(|_| of != "imum").map(|most| match of {
        "Length" => Invalid::new(path, format!("Too long: may not be more than {most} bytes")),
        _ => {
            let items = if most == 1.0 { "item" } else { "items" };
            Invalid::new(
                path,
                format!("Too many: {size}: must have at most {most} {items}"),
            )
        }
    }));
    if let (Value::String(text), Some(format)) = (value, schema["format"].as_str())
        && !validation::faults(format, text).is_empty()
    {
        let why = format!("{path} in body must be of type {format}: {value}");
        let reason = "FieldValueTypeInvalid";
        faults.push(Invalid {
            reason,
            ..Invalid::value(path, &value.to_string(), &why)
        });
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
