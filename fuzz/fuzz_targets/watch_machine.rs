//! Whatever servers answer, and whenever, a watch shows snapshots that begin and end in turn, goes
//! on from no version while one is under way, and its mirror follows.
#![no_main]

use std::time::Instant;

use kubewire::{
    session::watch::{Form, Mirror, Update, Watch, WatchConfig},
    wire::watch::{Encoding, EventError},
};
use kubewire_fuzz::{Script, drive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let config = WatchConfig {
        from: script.one_of([None, Some("7"), Some("0")]).map(str::to_owned),
        encoding: script.one_of([Encoding::Json, Encoding::Protobuf, Encoding::Cbor]),
        form: script.one_of([Form::Object, Form::Metadata, Form::Table]),
        watch_list: script.byte() % 2 == 0,
        max_event: 4096,
        max_page: 8192,
        ..WatchConfig::default()
    };
    let from = config.from.clone();
    let now = Instant::now();
    let watch = Watch::new(config, now, 1);
    let (mut snapshot, mut mirror) = (false, Mirror::new());
    let watch = drive(&mut script, watch, now, |_, update| {
        match &update {
            Update::SnapshotBegin => snapshot = true,
            Update::SnapshotEnd { .. } => {
                assert!(snapshot, "an end without a beginning");
                snapshot = false;
            }
            Update::Bookmark { resource_version } => assert!(!resource_version.is_empty()),
            Update::Retrying { error, .. } => {
                assert!(!error.to_string().contains(|c: char| c.is_control()));
            }
            _ => {}
        }
        let _ = mirror.apply(&update, |object| Ok::<_, EventError>(object.clone()));
    });
    assert!(from.is_some() || !snapshot || watch.resource_version().is_empty());
});
