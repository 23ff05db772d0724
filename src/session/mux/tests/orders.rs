//! Any order of what two ends do to a stream, and any bytes.

use proptest::prelude::*;

use super::*;

/// Who does what last on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    ClientWrites,
    ServerWrites,
    ClientFins,
    ServerFins,
    ClientResets,
    ServerResets,
    Run,
}

#[test]
fn ten_thousand_streams_in_every_order_of_fin_and_rst_leave_nothing() {
    use Step::*;
    let orders: Vec<Vec<Step>> = {
        let mut orders = vec![];
        let ends = [ClientFins, ServerFins, ClientResets, ServerResets];
        for first in ends {
            for second in ends {
                for third in ends {
                    for runs in 0..8 {
                        let mut order = vec![];
                        for (n, step) in [first, second, third].into_iter().enumerate() {
                            order.push(step);
                            if runs >> n & 1 == 1 {
                                order.push(Run);
                            }
                        }
                        // Whatever the order, both ends are done.
                        order.extend([ClientFins, ServerFins]);
                        orders.push(order);
                    }
                }
            }
        }
        orders
    };
    let mut pair = Pair::new();
    for n in 0..10_000 {
        let stream = pair.open(80);
        if n % 3 == 0 {
            pair.run();
        }
        let mut steps = vec![ClientWrites, ServerWrites];
        steps.extend_from_slice(&orders[n % orders.len()]);
        for step in steps {
            let (client, server) = (&mut pair.client.mux, &mut pair.server.mux);
            match step {
                // A write to a stream that is over is refused, which is as good.
                ClientWrites => drop(client.write(stream, "request".into())),
                ServerWrites => drop(server.write(stream, "answer".into())),
                ClientFins => client.finish(stream),
                ServerFins => server.finish(stream),
                ClientResets => client.reset(stream, RstStatus::CANCEL),
                ServerResets => server.reset(stream, RstStatus::CANCEL),
                Run => pair.run(),
            }
        }
        pair.run();
        // The server could not finish what it had not seen by then.
        pair.server.mux.finish(stream);
        pair.run();
        pair.client.seen.clear();
        pair.server.seen.clear();
    }
    pair.assert_nothing_left();
    assert_eq!((&pair.client.ended, &pair.server.ended), (&None, &None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is written arrives, in order and whole, however the bytes are cut.
    #[test]
    fn bytes_arrive_however_the_connection_is_cut(
        cuts in prop::collection::vec(1..3000usize, 1..20),
        writes in prop::collection::vec((0..5usize, any::<bool>(), 0..70_000usize), 0..30),
        run_every in 1..8usize,
    ) {
        let mut pair = Pair::with(MuxConfig::default(), cuts);
        let streams: Vec<StreamId> = (0..5).map(|port| pair.open(port)).collect();
        pair.run();
        let mut sent = vec![(Vec::new(), Vec::new()); 5];
        for (step, (n, from_client, length)) in writes.into_iter().enumerate() {
            let payload = vec![step as u8; length];
            let (mux, log) = match from_client {
                true => (&mut pair.client.mux, &mut sent[n].0),
                false => (&mut pair.server.mux, &mut sent[n].1),
            };
            log.extend_from_slice(&payload);
            mux.write(streams[n], payload.into()).unwrap();
            if step % run_every == 0 {
                pair.run();
            }
        }
        for stream in &streams {
            pair.client.mux.finish(*stream);
            pair.server.mux.finish(*stream);
        }
        pair.run();
        for (n, stream) in streams.iter().enumerate() {
            let (client, server) = (&pair.client.seen[stream], &pair.server.seen[stream]);
            prop_assert!(server.bytes == sent[n].0 && client.bytes == sent[n].1);
            prop_assert!(client.finished && server.finished);
            prop_assert!(client.reset.is_none() && server.reset.is_none());
        }
        pair.assert_nothing_left();
    }

    /// No bytes make it panic, and it says at most once that it has ended.
    #[test]
    fn no_bytes_make_it_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        mutate in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        server: bool,
    ) {
        let now = Instant::now();
        let role = if server { Role::Server } else { Role::Client };
        let mut end = End::new(role, MuxConfig::default(), now);
        // An honest start, slightly wrong.
        let mut wire = BytesMut::new();
        let mut peer = Mux::new(Role::Client, MuxConfig::default(), now);
        let stream = peer.open(now, &headers(80)).unwrap();
        peer.write(stream, "payload".into()).unwrap();
        while let Some(bytes) = peer.poll_transmit() {
            wire.extend_from_slice(&bytes);
        }
        for (at, byte) in mutate {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        end.mux.handle_bytes(now, wire.freeze());
        end.settle();
        for piece in pieces {
            end.mux.handle_bytes(now, piece.into());
            end.settle();
            while end.mux.poll_transmit().is_some() {}
        }
        end.mux.handle_end(None);
        end.settle();
        prop_assert!(end.ended.is_some());
        prop_assert!(end.mux.is_empty());
    }
}
