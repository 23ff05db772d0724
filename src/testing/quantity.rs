//! Quantities: in flow texts such as `1024Mi`, out comes their one form, such as `1Gi`
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The API server's words for what is none.
pub(super) const SPELLING: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

enum Suffix {
    Decimal,
    Binary,
    Exponent,
}

/// The number in billionths, and how it is spelled; `None` if it is none, or beyond what is counted
/// here.
fn parse(text: &str) -> Option<(i128, Suffix)> {
    let is_number =
        |character: char| character.is_ascii_digit() || matches!(character, '.' | '+' | '-');
    let (number, suffix) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !format!("{whole}{fraction}")
        .bytes()
        .any(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let is_negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches(['+', '-']));
    let mantissa = digits.parse::<u64>().ok()?;
    let (thousands, unit, kind) = match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
        Some(Ok(exponent)) => (exponent, 10_i128, Suffix::Exponent),
        _ => match BINARY
            .iter()
            .position(|known| *known == suffix && !suffix.is_empty())
        {
            Some(power) => (i32::try_from(power).ok()?, 1024, Suffix::Binary),
            None => {
                let power = DECIMAL.iter().position(|known| *known == suffix)?;
                (i32::try_from(power).ok()? * 3 - 9, 10, Suffix::Decimal)
            }
        },
    };
    let mut value = i128::from(mantissa);
    let mut divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let power = unit.checked_pow(thousands.unsigned_abs())?;
    match thousands {
        0.. => value = value.checked_mul(power)?,
        _ => divisor = divisor.checked_mul(power)?,
    }
    let value = value.checked_mul(NANO)?;
    // What is smaller than can be counted is rounded up.
    let value = (value + divisor - 1) / divisor;
    Some((if is_negative { -value } else { value }, kind))
}

/// The number, which other numbers are compared with.
pub(super) fn number(text: &str) -> Option<f64> {
    parse(text).map(|(value, _)| value as f64 / 1e9)
}

/// Whether it is a quantity at all; as the API server refuses what is none.
pub(super) fn is_valid(value: &Value) -> bool {
    let text = spelled(value);
    let number = text.trim_start_matches(['+', '-']);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = number.split_at(end.unwrap_or(number.len()));
    let is_number =
        number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() < 2;
    let is_suffix = DECIMAL.contains(&suffix)
        || BINARY.contains(&suffix)
        || suffix
            .strip_prefix(['e', 'E'])
            .is_some_and(|e| e.parse::<i32>().is_ok());
    is_number && is_suffix
}

fn spelled(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The one form of a quantity; `None` for what is none.
pub(super) fn canonical(value: &Value) -> Option<String> {
    let (mut value, mut kind) = parse(&spelled(value))?;
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
    let mut power = 0;
    while value % 1000 == 0 && power + 1 < DECIMAL.len() {
        (value, power) = (value / 1000, power + 1);
    }
    Some(match kind {
        Suffix::Exponent if power != 3 => format!("{value}e{}", power * 3 - 9),
        _ => format!("{value}{}", DECIMAL[power]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(is_valid(&given.into()), "{given}");
            assert_eq!(
                canonical(&given.into()).as_deref(),
                Some(expected),
                "{given}"
            );
        }
        assert_eq!(canonical(&1.into()).as_deref(), Some("1"));
        for bad in ["", "abc", "1x", "1.2.3", "Mi", "1 Gi"] {
            assert!(
                !is_valid(&bad.into()) && canonical(&bad.into()).is_none(),
                "{bad}"
            );
        }
    }
}
