//! Whatever servers answer, and whenever, a log ends once, says nothing afterwards, and gives only
//! bytes that came.
#![no_main]

use std::time::{Duration, Instant};

use kubewire::session::{
    Exchange,
    logs::{LogConfig, LogUpdate, Logs},
};
use kubewire_fuzz::{Script, drive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let choice = script.byte();
    let on = |bit: u8| choice & 1 << bit != 0;
    let config = LogConfig {
        container: on(0).then(|| "main".to_owned()),
        follow: on(1),
        across_restarts: on(2),
        previous: on(3),
        tail_lines: on(4).then_some(3),
        limit_bytes: on(5).then_some(100),
        resume: !on(6),
        max_line: if on(7) { 64 } else { 4096 },
        ..LogConfig::default()
    };
    let (limit, longest) = (config.limit_bytes, config.max_line);
    let now = Instant::now();
    let logs = Logs::new(config, now, 1);
    let (mut ended, mut taken) = (false, 0);
    let mut logs = drive(&mut script, logs, now, |logs, update| {
        assert!(!ended, "{update:?} after the end");
        match update {
            LogUpdate::Line(line) => {
                assert!(line.bytes.len() <= longest);
                taken += line.bytes.len();
                // Base64 aside, which only gets shorter, there is nothing that did not come.
                assert!(taken <= data.len());
                assert!(limit.is_none_or(|limit| taken as u64 <= limit));
            }
            LogUpdate::Notice(text) => assert!(!text.contains(|c: char| c.is_control())),
            LogUpdate::Retrying { error, retry_in } => {
                assert!(!error.to_string().contains(|c: char| c.is_control()));
                assert!(retry_in <= Duration::from_secs(600));
            }
            LogUpdate::Ended(_) => {
                ended = true;
                assert!(!logs.wants_response());
            }
            _ => {}
        }
    });
    if ended {
        assert!(logs.poll_timeout().is_none());
        assert!(logs.poll_request(now + Duration::from_secs(1 << 20)).is_none());
    }
});
