//! Any order of what two ends do to a connection, and any messages.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    ClientWrites,
    ServerWrites,
    ClientFinishes,
    ServerFinishes,
    ServerFails,
    ClientReleases,
    ClientDetaches,
    ServerReleases,
    ToServer,
    ToClient,
    Waits,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop::sample::select(vec![
        ClientWrites,
        ServerWrites,
        ClientFinishes,
        ServerFinishes,
        ServerFails,
        ClientReleases,
        ClientDetaches,
        ServerReleases,
        ToServer,
        ToClient,
        Waits,
    ])
}

fn take(pair: &mut Pair, step: Step, id: ConnectionId) {
    let now = pair.now;
    let known = pair.server.seen.contains_key(&id);
    match step {
        // A write to what is over is refused, which is as good.
        Step::ClientWrites => drop(pair.client.session.write(now, id, "request".into())),
        Step::ServerWrites if known => drop(pair.server.session.write(now, id, "answer".into())),
        Step::ClientFinishes => pair.client.finish(now, id),
        Step::ServerFinishes if known => pair.server.finish(now, id),
        Step::ServerFails if known => pair.server.session.fail(id, "failed"),
        Step::ClientReleases => pair.client.session.release(id),
        Step::ClientDetaches => pair.client.session.detach(now, id),
        Step::ServerReleases if known => pair.server.session.release(id),
        Step::ToServer => drop(pair.step(true)),
        Step::ToClient => drop(pair.step(false)),
        Step::Waits => pair.pass(limits::FORWARD_VERDICT),
        _ => {}
    }
}

#[test]
fn ten_thousand_connections_in_every_order_leave_nothing() {
    use Step::*;
    let ends = [
        ClientFinishes,
        ServerFinishes,
        ServerFails,
        ClientReleases,
        ClientDetaches,
        ServerReleases,
        ToServer,
        ToClient,
        Waits,
    ];
    let mut pair = Pair::spdy_with(ForwardConfig::default(), vec![1000, 300]);
    for n in 0..10_000usize {
        let id = pair.open(80);
        take(&mut pair, ClientWrites, id);
        if n % 5 != 0 {
            pair.run();
        }
        take(&mut pair, ServerWrites, id);
        let mut order = n;
        for _ in 0..5 {
            take(&mut pair, ends[order % ends.len()], id);
            order /= ends.len();
        }
        // In the end each side lets go, which the other side may or may not have seen coming.
        pair.run();
        pair.client.session.release(id);
        pair.run();
        pair.server.session.release(id);
        pair.run();
        pair.client.seen.clear();
        pair.server.seen.clear();
    }
    pair.assert_nothing_left();
    assert!(pair.client.others.is_empty() && pair.server.others.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens to one connection, the other carries its bytes and ends well.
    #[test]
    fn connections_do_not_disturb_each_other(
        steps in prop::collection::vec(step(), 0..25),
        cuts in prop::collection::vec(1..100usize, 1..5),
        payload in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut pair = Pair::spdy_with(ForwardConfig::default(), cuts);
        let (troubled, sound) = (pair.open(1), pair.open(2));
        for step in steps {
            take(&mut pair, step, troubled);
        }
        pair.client.write(pair.now, sound, &payload);
        pair.client.finish(pair.now, sound);
        pair.run();
        prop_assert_eq!(&pair.server.seen[&sound].bytes, &payload);
        pair.server.write(pair.now, sound, &payload);
        pair.server.finish(pair.now, sound);
        pair.run();
        prop_assert_eq!(&pair.client.seen[&sound].bytes, &payload);
        prop_assert_eq!(&pair.client.seen[&sound].closed, &Some(Ok(())));
        prop_assert_eq!(&pair.server.seen[&sound].closed, &Some(Ok(())));
        pair.client.session.release(troubled);
        pair.run();
        pair.server.session.release(troubled);
        pair.run();
        pair.assert_nothing_left();
    }

    /// No messages make a session panic, in either protocol and role.
    #[test]
    fn no_messages_make_it_panic(
        messages in prop::collection::vec((0..4u8, prop::collection::vec(any::<u8>(), 0..30)), 0..20),
        server: bool,
        kind in 0..3u8,
    ) {
        let now = Instant::now();
        let role = if server { Role::Server } else { Role::Client };
        let mut end = match kind {
            0 => End::spdy(role, ForwardConfig::default(), now),
            1 => End::channels(role, Encoding::Binary, &[1, 2], now),
            _ => End::channels(role, Encoding::Base64, &[1, 2], now),
        };
        if role == Role::Client {
            end.session.open(now, 1).unwrap();
        }
        for (n, (kind, bytes)) in messages.into_iter().enumerate() {
            let bytes = Bytes::from(bytes);
            let message = match kind {
                0 => Message::Text(bytes),
                1 => Message::Ping(bytes),
                _ => Message::Binary(bytes),
            };
            end.session.handle_message(now, message);
            end.settle();
            end.session.handle_timeout(now + n as u32 * SECOND);
            end.settle();
            while end.session.poll_transmit().is_some() {}
        }
        end.session.handle_end(None);
        end.settle();
        prop_assert!(end.session.is_ended() && end.session.is_empty());
        prop_assert_eq!(end.session.poll_timeout(), None);
    }
}
