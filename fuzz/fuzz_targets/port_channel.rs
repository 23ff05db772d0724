//! A message that is understood is written the same again, and its payload is a slice of it.
#![no_main]

use bytes::Bytes;
use kubewire::wire::{channel::Encoding, port_channel::{PortChannel, Preamble}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let message = Bytes::copy_from_slice(data);
    for encoding in [Encoding::Binary, Encoding::Base64] {
        let Ok(Some((channel, mut payload))) = PortChannel::parse(message.clone(), encoding) else {
            continue;
        };
        if encoding == Encoding::Binary {
            assert!(payload.is_empty() || payload.as_ptr() == message[1..].as_ptr());
            assert_eq!(channel.message(&payload, encoding), message);
        }
        let length = payload.len();
        let port = Preamble::default().take(&mut payload);
        assert_eq!(port.is_some(), length >= 2);
    }
});
