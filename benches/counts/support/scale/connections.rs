//! Connections in one tunnel, on the client's side: what the server sends is recorded first.

use std::{rc::Rc, time::Instant};

use kubewire::{
    Role,
    session::{
        Message, Session as _,
        port_forward::{ForwardConfig, ForwardEvent, PortForward as _, Spdy},
    },
};

use super::super::{Bytes, Case, case};

const ASKED: &[u8] = &[b'q'; 100];
const ANSWER: &[u8] = &[b'a'; 1 << 10];

/// So many are opened, and then all asked, answered and ended.
pub(super) fn whole(count: usize) -> Case {
    replayed(count, true)
}

/// So many are open, and nothing waits on them.
pub(super) fn open(count: usize) -> Case {
    replayed(count, false)
}

fn replayed(count: usize, asked: bool) -> Case {
    let now = Instant::now();
    let spdy = move |role| Spdy::new(role, ForwardConfig::default(), now);
    let mut server = spdy(Role::Server);
    let mut recorded = Vec::new();
    run(&mut spdy(Role::Client), now, count, asked, |sent| {
        for message in sent {
            server.handle_message(now, message);
        }
        while let Some(event) = server.poll_event() {
            answer(&mut server, now, event);
        }
        let answers: Vec<_> = messages(&mut server).collect();
        recorded.push(answers.clone());
        answers
    });
    let recorded = Rc::new(recorded);
    case(
        "connections",
        count,
        0,
        move || Rc::clone(&recorded),
        move |recorded| {
            let mut client = spdy(Role::Client);
            let mut answers = recorded.iter().cloned();
            run(&mut client, now, count, asked, |_| answers.next().unwrap());
            client
        },
    )
}

fn messages(session: &mut Spdy) -> impl Iterator<Item = Message> {
    std::iter::from_fn(|| {
        session
            .poll_transmit()
            .map(|transmit| transmit.to_message())
    })
}

/// The client's side, with what the server says to what was sent.
fn run(
    client: &mut Spdy,
    now: Instant,
    count: usize,
    asked: bool,
    mut server: impl FnMut(Vec<Message>) -> Vec<Message>,
) {
    let all: Vec<_> = (0..count).map(|_| client.open(now, 80).unwrap()).collect();
    exchange(client, now, &mut server);
    assert_eq!(client.len(), count);
    if !asked {
        return;
    }
    for id in &all {
        client.write(now, *id, Bytes::from_static(ASKED)).unwrap();
        client.finish(now, *id).unwrap();
    }
    let answered = exchange(client, now, &mut server);
    assert_eq!((answered, client.len()), (count * ANSWER.len(), 0));
}

/// How many bytes came.
fn exchange(
    client: &mut Spdy,
    now: Instant,
    server: &mut impl FnMut(Vec<Message>) -> Vec<Message>,
) -> usize {
    let sent = messages(client).collect();
    let mut read = 0;
    for message in server(sent) {
        client.handle_message(now, message);
        while let Some(event) = client.poll_event() {
            if let ForwardEvent::Readable(id) = event {
                while let Some(payload) = client.read(id) {
                    read += payload.len();
                }
            }
        }
    }
    read
}

/// Answers what has been asked.
fn answer(server: &mut Spdy, now: Instant, event: ForwardEvent) {
    if let ForwardEvent::Finished(id) = event {
        while server.read(id).is_some() {}
        server.write(now, id, Bytes::from_static(ANSWER)).unwrap();
        server.finish(now, id).unwrap();
    }
}
