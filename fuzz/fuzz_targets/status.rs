//! A Status that is understood reads the same after it is written, and only a success has code 0
//! and no cause.
#![no_main]

use kubewire::wire::status::Status;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(status) = Status::from_json(data) {
        assert_eq!(Status::from_json(&status.to_json()).unwrap(), status);
        assert_eq!(status.is_success(), status.status == "Success");
    }
    let text = Status::from_text(&String::from_utf8_lossy(data));
    assert!(!text.is_success());
});
