//! What flags of several subcommands have in common: kubectl's ways to write values.

use std::time::Duration;

use clap::{Arg, ArgAction, Command};

/// Lets the flags of these subcommands that take no value take `true` and `false` as well, as
/// Go's do: `--follow=true`.
pub(crate) fn with_values(command: Command, subcommands: &[&'static str]) -> Command {
    let take_value = |flag: Arg| match flag.get_action() {
        ArgAction::SetTrue => flag
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL"),
        _ => flag,
    };
    subcommands.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |subcommand| subcommand.mut_args(take_value))
    })
}

/// A duration in Go's form, such as `1h30m` or `1.5s`; none for zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: 30s, 5m, 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c)).ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest.find(is_number).unwrap_or(rest.len());
        // `time.ParseDuration` of Go.
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number * factor;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("1500ms", 1500),
            ("0s", 0),
            ("0", 0),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for bad in ["", "5", "m", "1d", "-1s", "1.2.3s", "9e99h", "1e30s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let long = format!("{}h", "9".repeat(30));
        assert!(duration(&long).is_err());
    }
}
