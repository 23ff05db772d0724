//! Durations as Go writes them: in flows the text of a flag, such as `1m0s`, out comes a
//! [`Duration`].

use std::time::Duration;

/// The longest duration that Go has: an `int64` of nanoseconds, 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// Digits of a fraction that count. With those behind it the result is still less than a
/// nanosecond away.
const FRACTION_DIGITS: usize = 18;

/// Parses what `time.ParseDuration` of Go parses, but for negative ones: no flag has a use for
/// them.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 30s, 1m0s, 1.5h or 500ms");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, behind) = digits(rest);
        let (fraction, behind) = behind.strip_prefix('.').map_or(("", behind), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad());
        }
        let end = behind.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let long = || format!("{text:?} is longer than 292 years");
        let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
        let scale = 10_u128.pow(fraction.len() as u32);
        let number = |digits: &str| match digits {
            "" => Ok(0),
            digits => digits.parse::<u128>().map_err(|_| long()),
        };
        let whole = number(whole)?.checked_mul(unit).ok_or_else(long)?;
        let fraction = number(fraction)? * unit / scale;
        total = whole
            .checked_add(fraction)
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(long)?;
        rest = behind;
    }
    // It fits: it is at most `LONGEST`.
    Ok(Duration::from_nanos(total as u64))
}

/// Parses a duration, or a whole number of seconds, which some of kubectl's flags take too.
pub(crate) fn or_seconds(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => parse(&format!("{text}s")),
        false => parse(text),
    }
}

/// The same, where 0 is for any time.
pub(crate) fn or_any(text: &str) -> Result<Duration, String> {
    let time = or_seconds(text)?;
    Ok(if time.is_zero() { Duration::MAX } else { time })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, nanoseconds) in [
            ("90s", 90_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m0s", 60_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1500ms", 1_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1.9ns", 1),
            ("3us4µs5μs", 12_000),
            ("0.1000000000000000000000000000000000000001s", 100_000_000),
            ("2562047h47m16.854775807s", i64::MAX as u64),
            ("+0", 0),
            ("0s", 0),
            ("0", 0),
        ] {
            let expected = Duration::from_nanos(nanoseconds);
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "+",
            "5",
            "m",
            "1d",
            "-1s",
            "1.2.3s",
            ".s",
            "1s ",
            "٣s",
            "9e99h",
            "1e30s",
            "1s2",
            "2562047h47m16.854775808s",
            "18446744073709551615s",
            "18446744073709551615h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for unit in ["ns", "h"] {
            assert!(parse(&format!("{}{unit}", "9".repeat(60))).is_err());
        }
    }

    #[test]
    fn a_number_alone_is_seconds_where_that_is_allowed() {
        assert_eq!(or_seconds("60"), Ok(Duration::from_secs(60)));
        assert_eq!(or_seconds("1m0s"), Ok(Duration::from_secs(60)));
        assert!(or_seconds("18446744073709551615").is_err());
        assert!(or_seconds("").is_err());
    }
}
