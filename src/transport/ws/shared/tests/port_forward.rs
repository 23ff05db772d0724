//! Connections that share a session.

use super::*;

/// Both ends of a port-forward.
fn forward(spdy: bool) -> (Connections, Connections, Open) {
    let (near, far, open) = pair();
    let session = |role| -> Box<dyn PortForward> {
        let config = ForwardConfig::default();
        match spdy {
            true => Box::new(Spdy::new(role, config, now())),
            false => {
                let channels = Channels::new(role, Encoding::Binary, &[80, 81], config, now());
                Box::new(channels.unwrap())
            }
        }
    };
    let client = Connections::spawn(session(Role::Client), near);
    let server = Connections::spawn(session(Role::Server), far);
    (client, server, open)
}

async fn send(stream: &ForwardStream, text: &'static [u8]) -> Result<(), Error> {
    stream.send(Bytes::from_static(text)).await
}

/// Sends back what comes on every connection.
async fn echo(server: Connections) {
    let mut echoes = Vec::new();
    while let Some((stream, _)) = server.accept().await {
        echoes.push(spawn(async move {
            while let Some(Ok(payload)) = poll_fn(|cx| stream.poll_payload(cx)).await {
                if stream.send(payload).await.is_err() {
                    return;
                }
            }
            let _ = stream.finish();
        }));
    }
    for echo in echoes {
        echo.await.unwrap();
    }
}

#[test]
fn connections_that_take_each_other_s_slots_lose_no_wakeup() {
    explore(|| {
        block_on(async {
            let (client, server, open) = forward(true);
            // It waits for something else, and is not to be woken in place of who accepts.
            let watching = server.clone();
            let closed = spawn(async move { watching.closed().await });
            let server = spawn(echo(server));
            let users: Vec<_> = (0..2)
                .map(|_| {
                    let client = client.clone();
                    spawn(async move {
                        for _ in 0..2 {
                            let stream = client.open(80).unwrap();
                            send(&stream, b"ping").await.unwrap();
                            let pong = poll_fn(|cx| stream.poll_payload(cx)).await;
                            assert_eq!(pong.unwrap().unwrap(), "ping");
                        }
                    })
                })
                .collect();
            for user in users {
                user.await.unwrap();
            }
            drop(client);
            server.await.unwrap();
            let _ = closed.await.unwrap();
            open.none().await;
        });
    });
}

#[test]
fn connections_may_be_dropped_at_any_point() {
    for spdy in [true, false] {
        explore(move || {
            block_on(async move {
                let (client, server, open) = forward(spdy);
                let server = spawn(echo(server));
                let watching = client.clone();
                let closed = spawn(async move { watching.closed().await });
                let users: Vec<_> = [80, 81]
                    .into_iter()
                    .map(|port| {
                        let client = client.clone();
                        let what = shuttle::rand::thread_rng().gen_range(0..4);
                        spawn(async move {
                            let stream = client.open(port).unwrap();
                            if what > 0 {
                                let _ = send(&stream, b"ping").await;
                            }
                            match what {
                                2 => drop(poll_fn(|cx| stream.poll_payload(cx)).await),
                                3 => stream.fail("given up"),
                                _ => {}
                            }
                        })
                    })
                    .collect();
                for user in users {
                    user.await.unwrap();
                }
                client.close();
                drop(client);
                let _ = closed.await.unwrap();
                server.await.unwrap();
                open.none().await;
            });
        });
    }
}

#[test]
fn who_only_writes_hears_of_the_end() {
    explore(|| {
        block_on(async {
            let (client, server, open) = forward(true);
            let server = spawn(async move {
                let stream = server.accept().await;
                let (stream, _) = stream.unwrap();
                let _ = poll_fn(|cx| stream.poll_payload(cx)).await;
                server.close();
            });
            let stream = client.open(80).unwrap();
            while send(&stream, &[0; 40_000]).await.is_ok() {}
            server.await.unwrap();
            drop((stream, client));
            open.none().await;
        });
    });
}

/// A peer that takes nothing more may still say that it is over.
#[test]
fn who_cannot_write_hears_of_the_end() {
    explore(|| {
        block_on(async {
            let (near, mut far, open) = pair();
            let spdy = Spdy::new(Role::Client, ForwardConfig::default(), now());
            let client = Connections::spawn(Box::new(spdy), near);
            let stream = client.open(80).unwrap();
            let writer = spawn(async move {
                while send(&stream, &[0; 40_000]).await.is_ok() {}
                stream
            });
            for _ in 0..shuttle::rand::thread_rng().gen_range(0..8) {
                yield_now().await;
            }
            far.send(Transmit::close(1000, ""));
            poll_fn(|cx| far.poll_flush(cx)).await.unwrap();
            drop(writer.await.unwrap());
            drop((client, far));
            open.none().await;
        });
    });
}

#[test]
fn all_that_wait_for_the_end_of_a_port_forward_hear_of_it() {
    explore(|| {
        block_on(async {
            let (client, server, open) = forward(true);
            let waits: Vec<_> = (0..2)
                .map(|_| {
                    let client = client.clone();
                    spawn(async move { client.closed().await })
                })
                .collect();
            let accepts: Vec<_> = (0..2)
                .map(|_| {
                    let server = server.clone();
                    spawn(async move { server.accept().await.is_none() })
                })
                .collect();
            yield_now().await;
            server.close();
            for wait in waits {
                let _ = wait.await.unwrap();
            }
            for accept in accepts {
                assert!(accept.await.unwrap());
            }
            drop((client, server));
            open.none().await;
        });
    });
}
