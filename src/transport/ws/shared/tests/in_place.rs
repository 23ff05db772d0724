//! Wakers that do more than to note that they were woken.

use super::*;

/// A waker that polls a reader in place, which wakes this one then, or another.
struct InPlace {
    /// None while it is being polled, and whether it was woken meanwhile.
    reader: Mutex<(Option<Input>, bool)>,
    other: Mutex<Option<Waker>>,
}

impl InPlace {
    fn new(reader: Input) -> Arc<Self> {
        Arc::new(Self {
            reader: Mutex::new((Some(reader), false)),
            other: Mutex::new(None),
        })
    }
}

impl Wake for InPlace {
    fn wake(self: Arc<Self>) {
        let other = lock(&self.other).clone();
        let waker = other.unwrap_or_else(|| self.clone().into());
        let mut cx = Context::from_waker(&waker);
        let mut state = lock(&self.reader);
        state.1 = true;
        while state.1
            && let Some(mut reader) = state.0.take()
        {
            state.1 = false;
            drop(state);
            while let Poll::Ready(Some(_)) = reader.poll_slice(&mut cx) {}
            state = lock(&self.reader);
            state.0 = Some(reader);
        }
    }
}

#[test]
fn a_waker_may_poll_in_place() {
    explore_exec(async |client, server| {
        let in_place = InPlace::new(client.input(Channel::Stderr));
        // It waits from here on.
        in_place.clone().wake();
        let server = spawn(process(server, 2));
        drop(client.output(Channel::Stdin));
        let stdout = read_all(client.input(Channel::Stdout)).await;
        assert_eq!(stdout.unwrap(), 20);
        assert!(client.status(&[]).await.unwrap().is_success());
        server.await.unwrap();
        drop(client);
        drop_reader(&in_place).await;
    });
}

/// A connection in memory wakes its other end while this end is polled.
#[test]
fn both_ends_may_poll_in_place() {
    explore_exec(async |client, server| {
        let readers = [
            InPlace::new(client.input(Channel::Stderr)),
            InPlace::new(server.input(Channel::Stdin)),
        ];
        for reader in &readers {
            reader.clone().wake();
        }
        let server = spawn(async move {
            let mut stdout = server.output(Channel::Stdout);
            let mut stderr = server.output(Channel::Stderr);
            for output in [&mut stdout, &mut stderr] {
                let _ = write(output, 2).await;
            }
            let _ = server.exit(&Status::success());
            let _ = server.ended().await;
        });
        let mut stdin = client.output(Channel::Stdin);
        let stdin = spawn(async move { write(&mut stdin, 3).await });
        let stdout = read_all(client.input(Channel::Stdout)).await;
        assert_eq!(stdout.unwrap(), 20);
        assert!(client.status(&[]).await.unwrap().is_success());
        let _ = stdin.await.unwrap();
        server.await.unwrap();
        drop(client);
        for reader in &readers {
            drop_reader(reader).await;
        }
    });
}

/// What the lock of one session does under the lock of another, the other must not do under the
/// lock of the one.
#[test]
fn two_sessions_may_poll_each_other_in_place() {
    explore(|| {
        block_on(async {
            let sessions = [exec(), exec()];
            let readers = [0, 1].map(|at| InPlace::new(sessions[at].0.input(Channel::Stderr)));
            for at in [0, 1] {
                *lock(&readers[at].other) = Some(readers[1 - at].clone().into());
            }
            for reader in &readers {
                reader.clone().wake();
            }
            let used = sessions.into_iter().map(|(client, server, open)| {
                spawn(async move {
                    let server = spawn(process(server, 2));
                    drop(client.output(Channel::Stdin));
                    let stdout = read_all(client.input(Channel::Stdout)).await;
                    assert_eq!(stdout.unwrap(), 20);
                    assert!(client.status(&[]).await.unwrap().is_success());
                    server.await.unwrap();
                    open
                })
            });
            let mut ends = Vec::new();
            for used in used.collect::<Vec<_>>() {
                ends.push(used.await.unwrap());
            }
            for (reader, open) in readers.iter().zip(ends) {
                *lock(&reader.other) = None;
                drop_reader(reader).await;
                open.none().await;
            }
        });
    });
}

/// Drops a reader that is polled in place.
async fn drop_reader(in_place: &InPlace) {
    loop {
        let reader = lock(&in_place.reader).0.take();
        match reader {
            Some(reader) => break drop(reader),
            None => yield_now().await,
        }
    }
}

/// A waker that owns a handle, as that of a task which nobody else remembers.
struct Owner(Mutex<Option<Input>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn the_last_waker_of_a_task_may_drop_its_handles() {
    explore_exec(async |client, server| {
        let owner = Arc::new(Owner(Mutex::new(None)));
        let waker = Waker::from(owner.clone());
        let mut wait = Box::pin(client.status(&[]));
        let polled = wait.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        *lock(&owner.0) = Some(client.input(Channel::Stderr));
        drop((owner, waker));
        // Another waker takes the place of the last one.
        poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_pending())).await;
        drop(wait);
        let server = spawn(process(server, 2));
        drop(client.output(Channel::Stdin));
        drop(client.input(Channel::Stdout));
        assert!(client.status(&[]).await.unwrap().is_success());
        server.await.unwrap();
    });
}
