//! Many sources, of which those are polled that were woken: in flow wakes, out comes what the
//! sources give, in turn.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use crate::transport::sync::{Mutex, lock};

/// What a source gives, and whose turn it is then.
#[derive(Debug)]
pub(super) enum Turn<R> {
    /// That of the others, then its own again.
    Next(R),
    /// Its own, if it has more at once.
    Stay(R),
    /// That of the others: it is at its end.
    Over(R),
}

/// Sources that are polled when they were woken.
#[derive(Debug)]
pub(super) struct ReadySet<T> {
    sources: BTreeMap<u64, Source<T>>,
    next_id: u64,
    /// Whose turn it still is.
    stays: Option<u64>,
    woken: Arc<Mutex<Woken>>,
}

#[derive(Debug)]
struct Source<T> {
    value: T,
    flag: Arc<Flag>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Woken {
    queue: VecDeque<u64>,
    reader: Option<Waker>,
}

/// What wakes one source.
#[derive(Debug)]
struct Flag {
    id: u64,
    queued: AtomicBool,
    woken: Arc<Mutex<Woken>>,
}

impl Flag {
    fn enqueue(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.woken).queue.push_back(self.id);
        }
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
        let reader = lock(&self.woken).reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> ReadySet<T> {
    pub(super) fn new() -> Self {
        Self {
            sources: BTreeMap::new(),
            next_id: 0,
            stays: None,
            woken: Arc::default(),
        }
    }

    /// Adds a source, which is polled next time.
    pub(super) fn push(&mut self, value: T) {
        let id = self.next_id;
        self.next_id += 1;
        let flag = Arc::new(Flag {
            id,
            queued: AtomicBool::new(false),
            woken: self.woken.clone(),
        });
        flag.enqueue();
        let waker = Waker::from(flag.clone());
        self.sources.insert(id, Source { value, flag, waker });
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The sources in the order in which they came.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.sources.values().map(|source| &source.value)
    }

    /// What the next source gives that has something; pending if none has.
    pub(super) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut T, &mut Context<'_>) -> Poll<Turn<R>>,
    ) -> Poll<R> {
        let mut woken = lock(&self.woken);
        let before = woken.reader.replace(cx.waker().clone());
        let mut left = woken.queue.len();
        drop(woken);
        // The last waker of a task drops the task, with sources in it that wake this one.
        drop(before);
        loop {
            let id = match self.stays.take() {
                Some(id) => id,
                None if left == 0 => break,
                None => {
                    left -= 1;
                    let Some(id) = lock(&self.woken).queue.pop_front() else {
                        break;
                    };
                    id
                }
            };
            let Some(source) = self.sources.get_mut(&id) else {
                continue;
            };
            // Whoever finds it queued until here has left what is seen from here on.
            source.flag.queued.swap(false, Ordering::AcqRel);
            let mut own = Context::from_waker(&source.waker);
            match poll(&mut source.value, &mut own) {
                Poll::Pending => {}
                Poll::Ready(Turn::Next(given)) => {
                    source.flag.enqueue();
                    return Poll::Ready(given);
                }
                Poll::Ready(Turn::Stay(given)) => {
                    self.stays = Some(id);
                    return Poll::Ready(given);
                }
                Poll::Ready(Turn::Over(given)) => {
                    self.sources.remove(&id);
                    return Poll::Ready(given);
                }
            }
        }
        // A source that wakes itself, as those do whose task has had its share, comes when the
        // task has its turn again.
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use shuttle::future::{block_on, spawn};

    use super::*;
    use crate::{
        Role,
        session::Opcode,
        transport::{
            sync::model::explore,
            ws::{messages::Messages, model::pair},
        },
    };

    /// What is to be given, and who waits for more.
    type Values = (VecDeque<Turn<u32>>, Option<Waker>);

    /// Gives what it is told to, and counts how often it is asked.
    #[derive(Default)]
    struct Told {
        values: Arc<Mutex<Values>>,
        polls: Arc<AtomicUsize>,
    }

    impl Told {
        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn<u32>> {
            self.polls.fetch_add(1, Ordering::Relaxed);
            let mut values = lock(&self.values);
            match values.0.pop_front() {
                Some(turn) => Poll::Ready(turn),
                None => {
                    values.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }
    }

    struct Reader(AtomicUsize);

    impl Wake for Reader {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set(count: usize) -> (ReadySet<Told>, Vec<Told>, Arc<AtomicUsize>) {
        let mut set = ReadySet::new();
        let polls = Arc::new(AtomicUsize::new(0));
        let handles = (0..count).map(|_| {
            let handle = Told::default();
            set.push(Told {
                values: handle.values.clone(),
                polls: polls.clone(),
            });
            handle
        });
        let handles = handles.collect();
        (set, handles, polls)
    }

    fn give(handle: &Told, turn: Turn<u32>) {
        let waker = {
            let mut values = lock(&handle.values);
            values.0.push_back(turn);
            values.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    #[test]
    fn of_many_sources_only_the_one_that_was_woken_is_polled() {
        let (mut set, handles, polls) = set(500);
        let reader = Arc::new(Reader(AtomicUsize::new(0)));
        let waker = Waker::from(reader.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(set.poll(&mut cx, Told::poll).is_pending());
        assert_eq!(polls.swap(0, Ordering::Relaxed), 500);
        for n in 0..1000 {
            give(&handles[n as usize % 500], Turn::Next(n));
            assert_eq!(reader.0.swap(0, Ordering::Relaxed), 1, "woken once");
            assert_eq!(set.poll(&mut cx, Told::poll), Poll::Ready(n));
            assert!(set.poll(&mut cx, Told::poll).is_pending());
        }
        // Once for what it gave, and once to hear that there is no more.
        assert_eq!(polls.load(Ordering::Relaxed), 2000);
    }

    #[test]
    fn sources_take_turns_unless_one_stays() {
        let (mut set, handles, _) = set(2);
        let mut cx = Context::from_waker(Waker::noop());
        for n in [10, 11] {
            give(&handles[0], Turn::Next(n));
        }
        give(&handles[1], Turn::Stay(20));
        give(&handles[1], Turn::Stay(21));
        give(&handles[1], Turn::Over(22));
        let mut given = Vec::new();
        while let Poll::Ready(n) = set.poll(&mut cx, Told::poll) {
            given.push(n);
        }
        assert_eq!(given, [10, 20, 21, 22, 11]);
        assert_eq!((set.len(), set.iter().len()), (1, 1));
        // A source that is over wakes nobody, and one that came later is polled.
        give(&handles[1], Turn::Next(23));
        assert!(set.poll(&mut cx, Told::poll).is_pending());
        set.push(Told::default());
        assert!(set.poll(&mut cx, Told::poll).is_pending() && !set.is_empty());
    }

    #[test]
    fn a_source_that_wakes_itself_does_not_keep_its_task() {
        let mut set = ReadySet::new();
        set.push(());
        let reader = Arc::new(Reader(AtomicUsize::new(0)));
        let waker = Waker::from(reader.clone());
        let mut polls = 0;
        let poll = |(): &mut (), cx: &mut Context<'_>| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<Turn<u32>>::Pending
        };
        assert!(
            set.poll(&mut Context::from_waker(&waker), poll)
                .is_pending()
        );
        assert_eq!((polls, reader.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn no_source_that_was_woken_is_forgotten() {
        explore(|| {
            block_on(async {
                let (mut set, handles, _) = set(3);
                let givers: Vec<_> = handles
                    .into_iter()
                    .map(|handle| {
                        spawn(async move {
                            give(&handle, Turn::Next(1));
                            give(&handle, Turn::Stay(1));
                            give(&handle, Turn::Over(1));
                        })
                    })
                    .collect();
                for _ in 0..9 {
                    assert_eq!(poll_fn(|cx| set.poll(cx, Told::poll)).await, 1);
                }
                assert!(set.is_empty());
                for giver in givers {
                    giver.await.unwrap();
                }
            });
        });
    }

    #[test]
    fn sessions_that_are_merged_lose_nothing() {
        explore(|| {
            block_on(async {
                let mut set = ReadySet::new();
                let servers: Vec<_> = (0..2)
                    .map(|_| {
                        let (near, far, open) = pair();
                        set.push(Messages::spawn(Role::Client, near));
                        let server = Messages::spawn(Role::Server, far);
                        spawn(async move {
                            for _ in 0..3 {
                                assert!(server.send(Opcode::Text, "line".into()).await);
                            }
                            server.finish().await;
                            open
                        })
                    })
                    .collect();
                let mut lines = 0;
                while !set.is_empty() {
                    let next = poll_fn(|cx| {
                        set.poll(cx, |source, cx| {
                            source.poll_next(cx).map(|message| match message {
                                Some(message) => Turn::Next(Some(message.unwrap())),
                                None => Turn::Over(None),
                            })
                        })
                    });
                    lines += usize::from(next.await.is_some());
                }
                assert_eq!(lines, 6);
                for server in servers {
                    server.await.unwrap().none().await;
                }
            });
        });
    }

    /// A reader that owns what wakes a source when it is dropped, as a task owns handles.
    struct Owner(Mutex<Option<Waker>>);

    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            if let Some(waker) = lock(&self.0).take() {
                waker.wake();
            }
        }
    }

    #[test]
    fn the_last_waker_of_a_reader_may_wake_a_source() {
        explore(|| {
            block_on(async {
                let (mut set, mut handles, _) = set(2);
                let owner = Arc::new(Owner(Mutex::new(None)));
                let reader = Waker::from(owner.clone());
                let polled = set.poll(&mut Context::from_waker(&reader), Told::poll);
                assert!(polled.is_pending());
                *lock(&owner.0) = lock(&handles[0].values).1.take();
                drop((owner, reader));
                let other = handles.pop().unwrap();
                let giver = spawn(async move { give(&other, Turn::Over(1)) });
                // Another takes the place of the last one.
                assert_eq!(poll_fn(|cx| set.poll(cx, Told::poll)).await, 1);
                giver.await.unwrap();
            });
        });
    }
}
