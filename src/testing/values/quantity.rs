//! Quantities: in flow texts such as `1024Mi`, out comes their one form, such as `1Gi`
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).

use serde_json::Value;

use crate::wire::quantity::{BINARY, DECIMAL, Suffix};
pub(crate) use crate::wire::quantity::{NANO, parse};

pub(crate) fn number(text: &str) -> Option<i128> {
    parse(text).map(|(number, _)| number)
}

/// As it is written.
pub(crate) fn spelled(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), |text| text.trim().to_owned())
}

/// As resources are counted, rounded up (`SetDefaults_ResourceList`).
pub(crate) const MILLI: i128 = NANO / 1000;

/// The one form of a quantity, in whole units; `None` for what is none.
pub(crate) fn canonical(value: &Value, unit: i128) -> Option<String> {
    let given = spelled(value);
    let (mut value, mut kind) = parse(&given)?;
    if is_kept(&given, unit) {
        return Some(given);
    }
    value = (value + unit - 1).div_euclid(unit) * unit;
    if matches!(kind, Suffix::Binary) {
        if value.abs() < 1024 * NANO {
            kind = Suffix::Decimal;
        } else {
            // `CanonicalizeBytes` counts whole bytes.
            value = value.div_euclid(NANO) + i128::from(value.rem_euclid(NANO) > 0);
            let mut power = 0;
            while value % 1024 == 0 && power + 1 < BINARY.len() {
                (value, power) = (value / 1024, power + 1);
            }
            return Some(format!("{value}{}", BINARY[power]));
        }
    }
    if value == 0 {
        return Some("0".to_owned());
    }
    let mut suffixes = (-9..).step_by(3).zip(DECIMAL).peekable();
    let (power, suffix) = loop {
        let suffix = suffixes.next()?;
        match suffixes.peek() {
            Some(_) if value % 1000 == 0 => value /= 1000,
            _ => break suffix,
        }
    };
    Some(match kind {
        Suffix::Exponent if power != 0 => format!("{value}e{power}"),
        _ => format!("{value}{suffix}"),
    })
}

/// Whether Go takes a text for the one form: with digits in groups of three, however it begins.
fn is_kept(text: &str, unit: i128) -> bool {
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = digits.split_at(end.unwrap_or(digits.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent = suffix.strip_prefix(['e', 'E']).map(str::parse);
    let place = DECIMAL.iter().position(|known| *known == suffix);
    let power = match (exponent, place) {
        (Some(Ok(power)), _) => power,
        (_, Some(place)) => 3 * place as i64 - 9,
        _ => return false,
    };
    let least = if unit == 1 { -9 } else { -3 };
    let scale = power - fraction.len() as i64;
    let ends_round = whole.is_empty() || format!("{whole}{fraction}").ends_with("000");
    number.len() < 19 && scale >= least && scale % 3 == 0 && !ends_round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::checks::validation;

    fn is_valid(text: &str) -> bool {
        validation::faults("resource-quantity", text).is_empty()
    }

    #[test]
    fn a_quantity_has_one_form() {
        for (given, expected) in [
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1000", "1k"),
            ("0", "0"),
            ("-2000m", "-2"),
            ("0.0000000001", "1n"),
        ] {
            assert!(is_valid(given), "{given}");
            assert_eq!(
                canonical(&given.into(), 1).as_deref(),
                Some(expected),
                "{given}"
            );
        }
        assert_eq!(canonical(&1.into(), 1).as_deref(), Some("1"));
        for bad in ["", "abc", "1x", "1.2.3", "Mi", "1 Gi"] {
            assert!(
                !is_valid(bad) && canonical(&bad.into(), 1).is_none(),
                "{bad}"
            );
        }
    }
}
