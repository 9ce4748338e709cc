//! What waits to be sent: by room in order, a state event in the place of an older one with its key, and no faster than
//! a homeserver takes it. Pure: time comes in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_channel::Sender;

use super::limits::QUEUED_A_ROOM;
use super::{Content, Kind, RoomError, RoomId};

/// How fast events are sent: so many a second in the long run, so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Events a second.
    pub per_second: f64,
    /// Events at once.
    pub burst: u32,
}

impl Default for Pace {
    /// Synapse's own default (`rc_message`), which counts the account's state and timeline events of all rooms.
    fn default() -> Self {
        Self { per_second: 0.2, burst: 10 }
    }
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) what: What,
    pub(super) content: Content,
    pub(super) waiter: Waiter,
}

/// Whoever wants to know what becomes of an event, if anybody does.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiter(pub(super) Option<Sender<Result<(), RoomError>>>);

impl Waiter {
    /// Tells what became of it.
    pub(super) fn tell(&self, outcome: Result<(), RoomError>) {
        if let Some(waiter) = &self.0 {
            // Whoever has gone need not know.
            let _ = waiter.try_send(outcome);
        }
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => a.same_channel(b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Waiter {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    State {
        key: String,
    },
    /// Sent again under the same transaction, it is one event for the homeserver.
    Timeline {
        transaction: String,
    },
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this; tell with [`Queue::put_back`] when it has to wait after all.
    Send(RoomId, Item),
    /// Nothing before then.
    At(Instant),
    /// Nothing.
    Empty,
}

/// See the module.
pub(super) struct Queue {
    /// The room whose turn it is comes first. None is empty.
    rooms: VecDeque<(RoomId, VecDeque<Item>)>,
    pace: Pace,
    /// Events that may be sent at once, as of `counted`.
    allowed: f64,
    counted: Instant,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
}

impl Queue {
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            rooms: VecDeque::new(),
            pace,
            allowed: f64::from(pace.burst),
            counted: now,
            paused_until: None,
        }
    }

    /// Queues an event.
    pub(super) fn push(&mut self, room: &RoomId, item: Item) -> Result<(), RoomError> {
        let Some((_, items)) = self.rooms.iter_mut().find(|(id, _)| id == room) else {
            self.rooms.push_back((room.clone(), VecDeque::from([item])));
            return Ok(());
        };
        if let Some(older) = items.iter_mut().find(|older| older.is_replaced_by(&item)) {
            // In its place the newer one is sent.
            std::mem::replace(older, item).waiter.tell(Ok(()));
            return Ok(());
        }
        if items.len() >= QUEUED_A_ROOM {
            return Err(RoomError::QueueFull { room: room.clone(), waiting: items.len() });
        }
        items.push_back(item);
        Ok(())
    }

    /// What to do now; takes out what is to be sent.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.rooms.is_empty() {
            return Next::Empty;
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Next::At(until);
        }
        self.paused_until = None;
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.allowed = (self.allowed + passed * self.pace.per_second).min(f64::from(self.pace.burst));
        self.counted = self.counted.max(now);
        // A thousandth of an event is rounding.
        if self.allowed < 0.999 {
            return Next::At(now + Duration::from_secs_f64((1.0 - self.allowed) / self.pace.per_second));
        }
        let Some((room, mut items)) = self.rooms.pop_front() else { return Next::Empty };
        let Some(item) = items.pop_front() else { return Next::Empty };
        self.allowed -= 1.0;
        if !items.is_empty() {
            self.rooms.push_back((room.clone(), items));
        }
        Next::Send(room, item)
    }

    /// Takes back what could not be sent, and sends nothing for `pause`. A newer state event with its key has taken its
    /// place meanwhile, if there is one.
    pub(super) fn put_back(&mut self, room: RoomId, item: Item, pause: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(Some(now + pause));
        match self.rooms.iter().position(|(id, _)| *id == room) {
            Some(at) => {
                if let Some((id, mut items)) = self.rooms.remove(at) {
                    match items.iter().any(|newer| item.is_replaced_by(newer)) {
                        true => item.waiter.tell(Ok(())),
                        false => items.push_front(item),
                    }
                    self.rooms.push_front((id, items));
                }
            }
            None => self.rooms.push_front((room, VecDeque::from([item]))),
        }
    }

    /// Ends a pause: the homeserver is back.
    pub(super) fn resume(&mut self) {
        self.paused_until = None;
    }

    /// Forgets what waits for a room.
    pub(super) fn forget(&mut self, room: &RoomId) {
        self.rooms.retain(|(id, _)| id != room);
    }

    /// How many events wait.
    pub(super) fn waiting(&self) -> usize {
        self.rooms.iter().map(|(_, items)| items.len()).sum()
    }
}

impl Item {
    /// Whether `newer` makes this one pointless.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        matches!((&self.what, &newer.what), (What::State { key: a }, What::State { key: b }) if a == b)
            && self.kind == newer.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomId {
        RoomId::parse(&format!("!{name}")).unwrap()
    }

    fn state(key: &str, n: u32) -> Item {
        let what = What::State { key: key.into() };
        Item { kind: Kind::parse("t.state").unwrap(), what, content: content(n), waiter: Waiter::default() }
    }

    fn said(n: u32) -> Item {
        let what = What::Timeline { transaction: n.to_string() };
        Item { kind: Kind::parse("t.said").unwrap(), what, content: content(n), waiter: Waiter::default() }
    }

    fn content(n: u32) -> Content {
        Content::parse(&format!("{{\"n\":{n}}}")).unwrap()
    }

    const FAST: Pace = Pace { per_second: 1000.0, burst: 1000 };

    fn drain(queue: &mut Queue, now: Instant) -> Vec<(String, Item)> {
        std::iter::from_fn(|| match queue.next(now) {
            Next::Send(room, item) => Some((room.to_string(), item)),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_newer_state_takes_the_older_ones_place() {
        let now = Instant::now();
        let mut queue = Queue::new(FAST, now);
        for item in [state("a", 1), said(2), state("b", 3), state("a", 4), said(5)] {
            queue.push(&room("x"), item).unwrap();
        }
        let items: Vec<_> = drain(&mut queue, now).into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [state("a", 4), said(2), state("b", 3), said(5)]);
        assert_eq!(queue.next(now), Next::Empty);
    }

    #[test]
    fn rooms_take_turns_and_each_keeps_its_order() {
        let now = Instant::now();
        let mut queue = Queue::new(FAST, now);
        for n in 0..3 {
            queue.push(&room("x"), said(n)).unwrap();
        }
        queue.push(&room("y"), said(9)).unwrap();
        let order: Vec<_> =
            drain(&mut queue, now).into_iter().map(|(room, item)| (room, item.content)).collect();
        let wanted = [("!x", 0), ("!y", 9), ("!x", 1), ("!x", 2)];
        assert_eq!(order, wanted.map(|(room, n)| (room.to_owned(), content(n))));
    }

    #[test]
    fn no_faster_than_the_pace() {
        let mut now = Instant::now();
        let begun = now;
        let mut queue = Queue::new(Pace::default(), now);
        for n in 0..30 {
            queue.push(&room("x"), said(n)).unwrap();
        }
        let mut sent = Vec::new();
        loop {
            match queue.next(now) {
                Next::Send(..) => sent.push(now.duration_since(begun).as_secs()),
                Next::At(at) => {
                    assert!(at > now && at <= now + Duration::from_secs(6), "{:?}", at - now);
                    now = at;
                }
                Next::Empty => break,
            }
        }
        assert_eq!(sent[..10], [0; 10], "a burst");
        assert!((99..=101).contains(&sent[29]), "then one in five seconds: {sent:?}");
        // A rest gives the burst back, and no more than that.
        now += Duration::from_secs(3600);
        for n in 0..30 {
            queue.push(&room("x"), said(n)).unwrap();
        }
        assert_eq!(drain(&mut queue, now).len(), 10);
    }

    #[test]
    fn what_comes_back_is_first_again_unless_it_is_outdated() {
        let now = Instant::now();
        let mut queue = Queue::new(FAST, now);
        queue.push(&room("x"), state("a", 1)).unwrap();
        queue.push(&room("x"), said(2)).unwrap();
        let Next::Send(to, first) = queue.next(now) else { panic!("something to send") };
        queue.put_back(to.clone(), first.clone(), Duration::from_secs(7), now);
        assert_eq!(queue.next(now), Next::At(now + Duration::from_secs(7)));
        let later = now + Duration::from_secs(7);
        assert_eq!(queue.next(later), Next::Send(to.clone(), first.clone()));
        queue.push(&to, state("a", 3)).unwrap();
        queue.put_back(to.clone(), first, Duration::from_secs(7), later);
        queue.resume();
        let items: Vec<_> = drain(&mut queue, later).into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [said(2), state("a", 3)]);
    }

    #[test]
    fn a_full_queue_refuses_what_is_new() {
        let mut queue = Queue::new(FAST, Instant::now());
        queue.push(&room("x"), state("a", 0)).unwrap();
        for n in 1..QUEUED_A_ROOM as u32 {
            queue.push(&room("x"), said(n)).unwrap();
        }
        assert!(matches!(queue.push(&room("x"), said(0)), Err(RoomError::QueueFull { .. })));
        queue.push(&room("x"), state("a", 1)).unwrap();
        queue.push(&room("y"), said(0)).unwrap();
        assert_eq!(queue.waiting(), QUEUED_A_ROOM + 1);
        queue.forget(&room("x"));
        assert_eq!(queue.waiting(), 1);
    }
}
