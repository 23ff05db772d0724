//! The times of files: in flow those of the disk, of archives and of a shell, out come seconds since
//! 1970, which are negative before.

use std::{
    io,
    time::{Duration, SystemTime},
};

use tar::Header;

/// The time of an entry. One before 1970 is in base 256, with its sign in front (GNU tar,
/// "Extensions to the Basic Tar Format").
pub(super) fn of_entry(header: &Header) -> io::Result<i64> {
    let low = header.mtime()?;
    match (header.as_old().mtime[0] & 0xc0 == 0xc0, i64::try_from(low)) {
        (true, _) => Ok(low.cast_signed()),
        (false, Ok(seconds)) => Ok(seconds),
        (false, Err(_)) => Err(io::Error::other("its time is none")),
    }
}

pub(super) fn set(header: &mut Header, seconds: i64) {
    header.set_mtime(seconds.cast_unsigned());
    if seconds < 0 {
        header.as_old_mut().mtime[..4].fill(0xff);
    }
}

/// Whole seconds, rounded towards the past.
pub(super) fn of_disk(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => 0_i64.saturating_add_unsigned(after.as_secs()),
        Err(before) => {
            let before = before.duration();
            let begun = i64::from(before.subsec_nanos() > 0);
            0_i64
                .saturating_sub_unsigned(before.as_secs())
                .saturating_sub(begun)
        }
    }
}

/// The time by the clock of this system, if that has it.
pub(super) fn to_disk(seconds: i64) -> Option<SystemTime> {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(apart),
        false => SystemTime::UNIX_EPOCH.checked_add(apart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_goes_there_and_back() {
        for seconds in [0, 1, -1, 8_589_934_592, -8_589_934_592, i64::MAX, i64::MIN] {
            let mut header = Header::new_gnu();
            set(&mut header, seconds);
            assert_eq!(of_entry(&header).ok(), Some(seconds));
            if let Some(time) = to_disk(seconds) {
                assert_eq!(of_disk(time), seconds);
            }
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(of_disk(before), -2);
        let mut header = Header::new_gnu();
        header.set_mtime(u64::MAX);
        assert!(of_entry(&header).is_err(), "2^64 seconds behind 1970");
    }
}
