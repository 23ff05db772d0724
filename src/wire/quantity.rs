//! Quantities: in flow texts such as `1024Mi`, out come numbers
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).

/// In billionths, below which nothing is counted.
pub const NANO: i128 = 1_000_000_000;
/// The suffixes of powers of 1000, from billionths on.
pub const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// The suffixes of powers of 1024.
pub const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    Decimal,
    Binary,
    Exponent,
}

/// The number in billionths, and how it is spelled; `None` if it is none, or beyond what is counted
/// here.
pub fn parse(text: &str) -> Option<(i128, Suffix)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = rest.split_at(end.unwrap_or(rest.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mantissa = format!("{whole}{fraction}").parse::<u64>().ok()?;
    let place = |all: &[&str]| all.iter().position(|known| *known == suffix);
    let exponent = suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>);
    let (power, unit, kind) = match (exponent, place(&DECIMAL), place(&BINARY)) {
        (Some(Ok(exponent)), ..) => (exponent, 10_i128, Suffix::Exponent),
        (_, Some(place), _) => (i32::try_from(place).ok()? * 3 - 9, 10, Suffix::Decimal),
        (_, None, place) => (i32::try_from(place?).ok()?, 1024, Suffix::Binary),
    };
    let mut value = i128::from(mantissa);
    let mut divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scale = unit.checked_pow(power.unsigned_abs())?;
    match power {
        0.. => value = value.checked_mul(scale)?,
        _ => divisor = divisor.checked_mul(scale)?,
    }
    // What is smaller than can be counted is rounded up.
    let value = value.checked_mul(NANO)?.checked_add(divisor - 1)? / divisor;
    Some((sign * value, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        for (text, expected) in [
            ("1", Some(NANO)),
            ("500m", Some(NANO / 2)),
            ("2Ki", Some(2048 * NANO)),
            ("-1.5k", Some(-1500 * NANO)),
            ("+.5", Some(NANO / 2)),
            ("1e3", Some(1000 * NANO)),
            ("1E-3", Some(NANO / 1000)),
            ("3E", Some(3 * NANO * NANO * NANO)),
            ("0.0000000001", Some(1)),
            ("9007199254740993", Some(9_007_199_254_740_993 * NANO)),
            ("", None),
            (".", None),
            ("Ki", None),
            ("1x", None),
            ("web-0", None),
            ("1.2.3", None),
            ("--1", None),
            ("1e99", None),
            ("99999999999999999999", None),
            ("18446744073709551615E", None),
        ] {
            assert_eq!(parse(text).map(|(value, _)| value), expected, "{text}");
        }
    }
}
