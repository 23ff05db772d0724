//! The RFC 3339 stamps of log lines and objects, as instants.
//!
//! In goes text such as `2026-11-22T01:55:55.156900177Z`; out comes a [`Stamp`], which compares as
//! an instant whatever offset the text was written with.

use std::fmt;

/// An instant with the resolution of the kubelet's log stamps: nanoseconds.
///
/// Stamps order and compare as instants: `02:00+01:00` equals `01:00Z`. The range is that of the
/// four-digit years of RFC 3339.
///
/// ```
/// use kubewire::wire::stamp::Stamp;
///
/// let stamp = Stamp::parse(b"2026-11-26T12:00:00.5Z").expect("it is RFC 3339");
/// assert_eq!((stamp.unix_seconds(), stamp.subsec_nanos()), (1_795_694_400, 500_000_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    seconds: i64,
    nanos: u32,
}

/// What every stamp begins with, with any digits.
const FORM: &[u8; 19] = b"0000-00-00T00:00:00";

impl Stamp {
    /// The instant `seconds` after 1970-01-01T00:00:00Z, and `nanos` nanoseconds.
    ///
    /// `None` if `nanos` is a second or more.
    pub const fn from_unix(seconds: i64, nanos: u32) -> Option<Self> {
        if nanos >= 1_000_000_000 {
            return None;
        }
        Some(Self { seconds, nanos })
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded towards the past.
    pub const fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    pub const fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// Parses text that is an RFC 3339 date and time and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match Self::parse_prefix(text)? {
            (stamp, used) if used == text.len() => Some(stamp),
            _ => None,
        }
    }

    /// Parses the stamp at the start of `text`, and says how many bytes it takes.
    ///
    /// The form is RFC 3339's with `T`, upper case, up to nine fraction digits and `Z` or an
    /// offset in hours and minutes: what Go's `time.RFC3339Nano` and the kubelet's fixed-width
    /// variant write.
    pub fn parse_prefix(text: &[u8]) -> Option<(Self, usize)> {
        let head = text.first_chunk::<{ FORM.len() }>()?;
        // How far each byte is above that of the form.
        let above: [u8; FORM.len()] = std::array::from_fn(|at| head[at].wrapping_sub(FORM[at]));
        let most = |at: usize| if FORM[at] == b'0' { 9 } else { 0 };
        if (0..FORM.len()).fold(false, |other, at| other | (above[at] > most(at))) {
            return None;
        }
        let two = |at: usize| i32::from(above[at]) * 10 + i32::from(above[at + 1]);
        let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
        let (hour, minute, second) = (two(11), two(14), two(17));
        if !(1..=12).contains(&month)
            || !(1..=days_in(year, month)).contains(&day)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut used = FORM.len();
        let mut nanos = 0;
        if text.get(used) == Some(&b'.') {
            let mut count = 0;
            while let Some(digit @ b'0'..=b'9') = text.get(used + 1 + count) {
                if count == 9 {
                    return None;
                }
                nanos = nanos * 10 + u32::from(digit - b'0');
                count += 1;
            }
            if count == 0 {
                return None;
            }
            nanos *= 10_u32.pow(9 - count as u32);
            used += 1 + count;
        }
        let offset = match *text.get(used)? {
            b'Z' => {
                used += 1;
                0
            }
            sign @ (b'+' | b'-') => {
                let zone = text.get(used + 1..used + 6)?;
                let (hours, minutes) = (digits(&zone[..2])?, digits(&zone[3..])?);
                if zone[2] != b':' || hours > 23 || minutes > 59 {
                    return None;
                }
                used += 6;
                let seconds = i64::from(hours * 3600 + minutes * 60);
                if sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        let clock = i64::from(hour * 3600 + minute * 60 + second);
        let days = days_from_epoch(year, month, day);
        let seconds = i64::from(days) * 86_400 + clock - offset;
        Some((Self { seconds, nanos }, used))
    }
}

/// UTC with nine fraction digits, the kubelet's form.
impl From<std::time::SystemTime> for Stamp {
    fn from(time: std::time::SystemTime) -> Self {
        let whole =
            |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: whole(after),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let part = before.subsec_nanos();
                Self {
                    seconds: -whole(before) - i64::from(part > 0),
                    nanos: if part > 0 { 1_000_000_000 - part } else { 0 },
                }
            }
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, clock) = (
            self.seconds.div_euclid(86_400),
            self.seconds.rem_euclid(86_400),
        );
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
            self.nanos
        )
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

fn days_in(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, counted with years that begin in March, so that the leap day
/// is the last of its year.
fn days_from_epoch(year: i32, month: i32, day: i32) -> i32 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 0000-03-01 is 719,468 days before 1970-01-01.
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix(text: &str) -> Option<(i64, u32)> {
        Stamp::parse(text.as_bytes()).map(|s| (s.unix_seconds(), s.subsec_nanos()))
    }

    #[test]
    fn reads_known_instants() {
        assert_eq!(unix("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(
            unix("2026-11-22T01:55:55.156900177Z"),
            Some((1_795_312_555, 156_900_177))
        );
        assert_eq!(
            unix("2000-02-29T23:59:59.5Z"),
            Some((951_868_799, 500_000_000))
        );
        assert_eq!(unix("1969-12-31T23:59:59.000000001Z"), Some((-1, 1)));
    }

    #[test]
    fn an_offset_does_not_change_the_instant() {
        let utc = Stamp::parse(b"2026-11-22T01:55:55.000000001Z").unwrap();
        let india = Stamp::parse(b"2026-11-22T07:25:55.000000001+05:30").unwrap();
        let newfoundland = Stamp::parse(b"2026-11-21T22:25:55.000000001-03:30").unwrap();
        assert_eq!(utc, india);
        assert_eq!(utc, newfoundland);
        assert!(utc < Stamp::parse(b"2026-11-22T01:55:55.000000002Z").unwrap());
    }

    #[test]
    fn refuses_what_is_no_stamp() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22 01:55:55Z",
            "2026-11-22T01:55:55",
            "2026-13-22T01:55:55Z",
            "2026-02-29T01:55:55Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T01:60:00Z",
            "2026-11-22T01:55:60Z",
            "2026-11-22T01:55:55.Z",
            "2026-11-22T01:55:55.1234567890Z",
            "2026-11-22T01:55:55+0530",
            "2026-11-22T01:55:55+24:00",
            "2026-11-22T01:55:55+05",
            "2026-11-22T01:55:55Zx",
            "-026-11-22T01:55:55Z",
        ] {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn no_other_byte_stands_for_a_digit_or_a_separator() {
        let text = b"2026-11-22T01:55:55.156900177Z";
        for (at, byte) in (0..text.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut other = *text;
            other[at] = byte;
            let alike = byte == text[at] || byte.is_ascii_digit() && text[at].is_ascii_digit();
            assert!(alike || Stamp::parse(&other).is_none(), "{byte} at {at}");
        }
    }

    #[test]
    fn every_day_of_800_years_follows_the_one_before() {
        let mut expected = days_from_epoch(1900, 1, 1);
        for year in 1900..2700 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_from_epoch(year, month, day), expected);
                    let date = (year.into(), month.into(), day.into());
                    assert_eq!(date_of(expected.into()), date);
                    expected += 1;
                }
            }
        }
        assert_eq!(days_from_epoch(1970, 1, 1), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in -62_167_219_200_i64..253_402_300_800, nanos in 0..1_000_000_000_u32) {
            let stamp = Stamp::from_unix(seconds, nanos).unwrap();
            prop_assert_eq!(Stamp::parse(stamp.to_string().as_bytes()), Some(stamp));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let _ = Stamp::parse_prefix(&bytes);
        }
    }
}
