use super::*;

#[test]
fn of_a_flood_of_sizes_the_last_two_are_told() {
    let now = Instant::now();
    let streams = Streams {
        stdin: true,
        tty: true,
        ..Streams::default()
    };
    let keepalive = KeepaliveConfig::default();
    let mut session = RemoteCommand::new(Role::Server, Subprotocol::V5, streams, keepalive, now);
    let mut message = vec![4];
    for _ in 0..500_000 {
        message.extend_from_slice(b"{}");
    }
    message.extend_from_slice(br#"{"Width":80}{"Width":81}"#);
    session.handle_message(now, Message::Binary(message.into()));
    let widths: Vec<u16> = std::iter::from_fn(|| session.poll_event())
        .map(|event| match event {
            RemoteCommandEvent::Resize(size) => size.width,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(widths, [80, 81]);
}

#[test]
fn input_that_was_not_sent_when_the_status_came_is_told() {
    let streams = Streams {
        stdin: true,
        ..Streams::default()
    };
    for (protocol, message) in [
        (Subprotocol::V5, "\x03{\"status\":\"Success\"}"),
        (Subprotocol::V4, "\x03{\"status\":\"Success\"}"),
        (Subprotocol::V4Base64, "3eyJzdGF0dXMiOiJTdWNjZXNzIn0="),
    ] {
        let now = Instant::now();
        let keepalive = KeepaliveConfig::default();
        let exit = |sent: usize, finish: bool| {
            let mut session = RemoteCommand::new(Role::Client, protocol, streams, keepalive, now);
            for _ in 0..3 {
                let payload = vec![7; 1000].into();
                session.write(now, Channel::Stdin, payload).unwrap();
            }
            if finish {
                let _ = session.finish(now);
            }
            for _ in 0..sent {
                session.poll_transmit();
            }
            session.handle_message(now, Message::Binary(message.into()));
            assert_eq!(session.queued(), 0);
            session.input_at_exit().unwrap()
        };
        let whole = exit(4, true);
        assert!(whole.is_whole(), "{protocol}: {whole:?}");
        let cut = exit(1, true);
        assert_eq!((cut.unsent, cut.is_whole()), (2000, false), "{protocol}");
        let open = exit(3, false);
        assert_eq!((open.unsent, open.closed), (0, false), "{protocol}");
    }
}

#[test]
fn only_clients_signal_the_end_of_a_stream() {
    let streams = Streams {
        stdin: true,
        stdout: true,
        ..Streams::default()
    };
    let signals = |role| {
        let now = Instant::now();
        let keepalive = KeepaliveConfig::default();
        let mut session = RemoteCommand::new(role, Subprotocol::V5, streams, keepalive, now);
        while session.poll_transmit().is_some() {}
        session.finish(now).unwrap();
        session.poll_transmit().map(|transmit| transmit.payload)
    };
    assert_eq!(signals(Role::Client).as_deref(), Some(&[255, 0][..]));
    assert_eq!(signals(Role::Server), None);
}

/// Version 5 says all before the Status; other versions may have more to say.
#[test]
fn a_status_that_is_last_outlives_a_broken_end() {
    for protocol in [Subprotocol::V5, Subprotocol::V4] {
        let now = Instant::now();
        let (streams, keepalive) = (Streams::default(), KeepaliveConfig::default());
        let start = || RemoteCommand::new(Role::Client, protocol, streams, keepalive, now);
        let ends = |session: &mut RemoteCommand| {
            let told = std::iter::from_fn(|| session.poll_event()).last();
            matches!(told, Some(RemoteCommandEvent::Ended(Ok(()))))
        };
        let status = Message::Binary("\x03{\"status\":\"Success\"}".into());
        let broken = || PeerError::Handshake("a close frame that is none".into());
        let mut session = start();
        session.handle_message(now, status.clone());
        session.handle_end(Some(broken().into()));
        assert_eq!(ends(&mut session), protocol.status_is_last(), "{protocol}");
        let mut session = start();
        session.handle_message(now, status);
        // No channel has this number.
        session.handle_message(now, Message::Binary("\x09".into()));
        assert_eq!(ends(&mut session), protocol.status_is_last(), "{protocol}");
        let mut session = start();
        session.handle_end(Some(broken().into()));
        assert!(!ends(&mut session), "{protocol}");
    }
}
