//! A message of the base64 subprotocols is what a second decoder says, or refused, and what a
//! session sends reads back as what was written.
#![no_main]

use bytes::Bytes;
use data_encoding::BASE64;
use kubewire::wire::channel::{self, Channel, ChannelError, Encoding, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, text)) = data.split_first() else {
        return;
    };
    let message = Bytes::copy_from_slice(data);
    let known = first.checked_sub(b'0').and_then(Channel::from_number);
    match (channel::parse(Encoding::Base64, false, message), known) {
        (Ok(Some(Frame::Data(channel, payload))), Some(known)) => {
            assert_eq!(channel, known);
            assert_eq!(BASE64.decode(text).expect("they agree"), payload);
        }
        // The other decoder takes several padded texts in a row for one.
        (Err(ChannelError::Base64(_)), Some(_)) => {
            let padding = text.iter().position(|&byte| byte == b'=');
            let joined = padding.is_some_and(|at| at + 2 < text.len());
            assert!(joined || BASE64.decode(text).is_err());
        }
        (Err(ChannelError::UnknownChannel(_)), None) => {}
        (outcome, known) => panic!("{outcome:?} of {known:?}"),
    }
    if let Some(channel) = Channel::from_number(first % 5) {
        let written = channel::to_base64(channel, text);
        let read = channel::parse(Encoding::Base64, false, written);
        assert_eq!(read, Ok(Some(Frame::Data(channel, Bytes::copy_from_slice(text)))));
    }
});
