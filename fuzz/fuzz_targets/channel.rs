//! A message that is understood is written the same again, and its payload is a slice of it.
#![no_main]

use bytes::Bytes;
use kubewire::wire::channel::{self, Encoding, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let message = Bytes::copy_from_slice(data);
    for close in [false, true] {
        match channel::parse(Encoding::Binary, close, message.clone()) {
            Ok(Some(Frame::Data(channel, payload))) => {
                assert_eq!(data, [&[channel::prefix(channel)], &payload[..]].concat());
                assert!(payload.is_empty() || payload.as_ptr() == message[1..].as_ptr());
            }
            Ok(Some(Frame::Close(channel))) => {
                assert!(close);
                assert_eq!(data, channel::close_signal(channel));
            }
            Ok(None) => assert!(data.is_empty()),
            Err(_) => {}
        }
    }
    if let Ok(Some(Frame::Data(channel, payload))) =
        channel::parse(Encoding::Base64, false, message.clone())
    {
        assert_eq!(message, channel::to_base64(channel, &payload));
    }
});
