//! Connections in channels.

use super::*;

#[test]
fn an_upload_to_an_application_that_does_not_read_goes_on() {
    let mut pair = Pair::channels(Encoding::Binary, &[80]);
    let id = pair.open(80);
    pair.run();
    pair.client.write(pair.now, id, b"nobody reads this");
    // The server reads nothing more, pings neither.
    for _ in 0..360 {
        pair.pass(10 * SECOND);
        while pair.client.session.poll_transmit().is_some() {}
    }
    assert_eq!(pair.client.seen[&id].closed, None);
    assert!(!pair.client.session.is_ended());
}

#[test]
fn channels_carry_each_port_and_end_together() {
    for encoding in [Encoding::Binary, Encoding::Base64] {
        let mut pair = Pair::channels(encoding, &[80, 443]);
        let web = pair.open(80);
        assert_eq!(
            pair.client.session.open(pair.now, 80),
            Err(OpenError::Exhausted)
        );
        pair.run();
        let tls = pair.open(443);
        assert_eq!(
            pair.client.session.open(pair.now, 443),
            Err(OpenError::Exhausted)
        );
        pair.client.write(pair.now, web, b"GET /");
        pair.client.write(pair.now, tls, &vec![22; 200_000]);
        pair.run();
        assert!(pair.client.seen[&web].accepted && pair.client.seen[&tls].accepted);
        assert_eq!(pair.server.seen[&web].bytes, b"GET /");
        assert_eq!(pair.server.seen[&tls].bytes, vec![22; 200_000]);
        assert!(pair.client.session.finish(pair.now, web).is_err());
        pair.server.write(pair.now, web, b"200");
        pair.server.finish(pair.now, web);
        pair.run();
        assert_eq!(pair.client.seen[&web].closed, None, "nothing says so yet");
        pair.server.session.fail(tls, "no route");
        pair.run();
        assert_eq!(pair.client.seen[&web].bytes, b"200");
        assert_eq!(pair.client.seen[&web].closed, Some(Ok(())));
        assert!(matches!(&pair.client.seen[&tls].closed, Some(Err(e)) if e.contains("no route")));
        assert_eq!(pair.client.others, ["writable", "ended: Ok(())"]);
        assert!(pair.server.session.is_ended());
        pair.assert_nothing_left();
    }
}

#[test]
fn a_refused_port_fails_while_the_other_goes_on() {
    let mut pair = Pair::channels(Encoding::Binary, &[80, 81]);
    let (good, bad) = (pair.open(80), pair.open(81));
    pair.run();
    pair.server.session.fail(bad, "connection refused");
    pair.run();
    pair.pass(limits::FORWARD_VERDICT);
    assert!(matches!(pair.client.seen[&bad].closed, Some(Err(_))));
    pair.server.write(pair.now, good, b"fine");
    pair.run();
    assert_eq!(pair.client.seen[&good].bytes, b"fine");
    pair.client.session.release(good);
    pair.run();
    assert_eq!(pair.client.session.poll_timeout(), None);
    assert!(pair.client.session.is_ended());
    assert!(matches!(pair.server.seen[&good].closed, Some(Err(_))));
}

#[test]
fn channels_refuse_what_no_server_sends() {
    let cases: [(&'static [u8], &str); 3] = [
        (b"\x00\x51\x00", "announced as port 81"),
        (b"\x04\x50\x00", "channel 4"),
        (b"\xff", "channel 255"),
    ];
    for (message, expected) in cases {
        let now = Instant::now();
        let mut client = End::channels(Role::Client, Encoding::Binary, &[80, 81], now);
        client
            .session
            .handle_message(now, Message::Binary(Bytes::from_static(message)));
        client.settle();
        assert!(client.others[0].contains(expected), "{:?}", client.others);
    }
    let now = Instant::now();
    let mut server = End::channels(Role::Server, Encoding::Binary, &[80], now);
    server
        .session
        .handle_message(now, Message::Binary(Bytes::from_static(b"\x01")));
    server.settle();
    assert!(matches!(
        server.session,
        Of::Channels(ref channels) if channels.is_ended()
    ));
    let config = ForwardConfig::default;
    let count = |ports: usize, encoding| {
        Channels::new(Role::Client, encoding, &vec![1; ports], config(), now).is_ok()
    };
    assert!(!count(0, Encoding::Binary));
    assert!(count(127, Encoding::Binary) && !count(128, Encoding::Binary));
    assert!(count(39, Encoding::Base64) && !count(40, Encoding::Base64));
}

#[test]
fn a_full_channel_holds_the_rest_back_until_its_reader_is_given_up() {
    let mut pair = Pair::channels(Encoding::Binary, &[80, 81]);
    let (slow, other) = (pair.open(80), pair.open(81));
    pair.client.unread.push(slow);
    pair.run();
    pair.server
        .write(pair.now, slow, &vec![0; limits::FORWARD_RECEIVE]);
    pair.run();
    assert!(pair.client.session.wants_hold());
    let due = pair.client.session.poll_timeout().unwrap();
    assert_eq!(due, pair.now + limits::FORWARD_PATIENCE);
    pair.pass(limits::FORWARD_PATIENCE);
    assert!(matches!(pair.client.seen[&slow].closed, Some(Err(_))));
    assert!(!pair.client.session.wants_hold());
    pair.server.write(pair.now, other, b"moves");
    pair.run();
    assert_eq!(pair.client.seen[&other].bytes, b"moves");
}

#[test]
fn a_silent_channel_server_is_noticed() {
    let mut pair = Pair::channels(Encoding::Binary, &[80]);
    let id = pair.open(80);
    pair.run();
    for _ in 0..8 {
        pair.pass(10 * SECOND);
        while pair.client.session.poll_transmit().is_some() {}
    }
    let error = pair.client.seen[&id].closed.clone().unwrap().unwrap_err();
    assert!(error.contains("silent"), "{error}");
}
