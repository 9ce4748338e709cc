//! What one taker wants and has not got.

use std::collections::{BTreeMap, HashMap};
use std::io::{Error, Result};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::io::AsyncRead;

use crate::base::PeerId;
use crate::wire::near::Ask;

use super::super::io::Reader;

/// Chunks that one taker may have asked for and not got: a session has 256 on their way at most. A hundred bytes each.
const WANTED: usize = 1024;

/// Chunks that one taker may ask for in a second, over and over, and how many of them at once: beyond it its frames
/// wait. It gets fewer than that.
const WANTS_PER_SECOND: f64 = 2048.0;
const WANTS_AT_ONCE: f64 = 8192.0;

/// Chunks that a frame counts for at least.
const LEAST_WANTS: u32 = 16;

/// Largest frame of a taker: all that is known are shorter than 32 bytes.
const ASK_BYTES: usize = 4 << 10;

/// What a taker wants and has not got.
#[derive(Default)]
pub(super) struct Wanted {
    queue: Mutex<Queue>,
    pub(super) changed: Event,
}

/// Chunks in the order in which they were wanted last.
#[derive(Default)]
struct Queue {
    order: BTreeMap<u64, Wish>,
    at: HashMap<u32, u64>,
    next: u64,
}

/// A chunk that is wanted.
#[derive(Clone, Copy)]
struct Wish {
    n: u32,
    insist: bool,
    since: Instant,
}

impl Queue {
    fn want(&mut self, wish: Wish) {
        self.cancel(wish.n);
        self.order.insert(self.next, wish);
        self.at.insert(wish.n, self.next);
        self.next += 1;
    }

    fn cancel(&mut self, n: u32) {
        if let Some(at) = self.at.remove(&n) {
            self.order.remove(&at);
        }
    }

    fn cancel_all(&mut self, first: u32, count: u32) {
        let end = first.saturating_add(count);
        if (count as usize) < self.at.len() {
            (first..end).for_each(|n| self.cancel(n));
        } else {
            let wanted: Vec<u32> = self.at.keys().copied().filter(|n| (first..end).contains(n)).collect();
            wanted.into_iter().for_each(|n| self.cancel(n));
        }
    }
}

/// What is to be done for a taker now.
pub(super) enum Next {
    Give(u32),
    /// Somebody else is to be asked for it.
    Refer(u32, PeerId),
    /// Nothing before then.
    Wait(Option<Instant>),
}

impl Wanted {
    /// Reads wants until the taker closes.
    pub(super) async fn read<R: AsyncRead + Unpin>(&self, mut reader: Reader<R>) -> Result<()> {
        let (mut left, mut at) = (WANTS_AT_ONCE, Instant::now());
        while let Some(frame) = reader.frame(ASK_BYTES).await? {
            let ask = Ask::decode(&frame).map_err(Error::other)?;
            let (Ask::Want { count, .. } | Ask::Cancel { count, .. } | Ask::Unknown(count)) = ask;
            let weighs = f64::from(count.clamp(LEAST_WANTS, WANTED as u32));
            let now = Instant::now();
            left =
                (left + now.duration_since(at).as_secs_f64() * WANTS_PER_SECOND).min(WANTS_AT_ONCE) - weighs;
            at = now;
            if left < 0.0 {
                async_io::Timer::after(Duration::from_secs_f64(-left / WANTS_PER_SECOND)).await;
            }
            let mut queue = self.queue.lock().expect(LOCK);
            match ask {
                Ask::Want { first, count, insist } => {
                    if queue.at.len() + count as usize > WANTED {
                        return Err(Error::other("it wants too much at once"));
                    }
                    (first..first.saturating_add(count))
                        .for_each(|n| queue.want(Wish { n, insist, since: now }));
                }
                Ask::Cancel { first, count } => queue.cancel_all(first, count),
                Ask::Unknown(_) => {}
            }
            drop(queue);
            self.changed.notify(1);
        }
        Ok(())
    }

    /// Takes what somebody else is to be asked for, or the first that `can` be given, once it was wanted for `hold`.
    ///
    /// All of the former come first: whoever waits for an answer could have it elsewhere meanwhile.
    pub(super) fn next(
        &self,
        can: impl Fn(u32) -> bool,
        elsewhere: impl Fn(u32) -> Option<PeerId>,
        hold: Duration,
    ) -> Next {
        let mut queue = self.queue.lock().expect(LOCK);
        let mut wishes = queue.order.values().filter(|wish| !wish.insist);
        if let Some((n, other)) = wishes.find_map(|wish| Some((wish.n, elsewhere(wish.n)?))) {
            queue.cancel(n);
            return Next::Refer(n, other);
        }
        let Some(first) = queue.order.values().find(|wish| can(wish.n)).copied() else {
            return Next::Wait(None);
        };
        if first.since.elapsed() < hold {
            return Next::Wait(Some(first.since + hold));
        }
        queue.cancel(first.n);
        Next::Give(first.n)
    }
}

const LOCK: &str = "no panic happens under this lock";

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn what_is_elsewhere_is_said_before_anything_is_given() {
        let wanted = Wanted::default();
        let wish = |n, insist| Wish { n, insist, since: Instant::now() };
        for (n, insist) in [(3, false), (1, false), (2, true), (7, false)] {
            wanted.queue.lock().unwrap().want(wish(n, insist));
        }
        let elsewhere = |n: u32| (n == 7 || n == 2).then(|| peer(1));
        let next = |hold| wanted.next(|n| n < 3, elsewhere, hold);
        assert!(matches!(next(Duration::ZERO), Next::Refer(7, _)));
        assert!(matches!(next(Duration::from_secs(60)), Next::Wait(Some(_))), "it is too fresh");
        assert!(matches!(next(Duration::ZERO), Next::Give(1)), "the first that is here");
        assert!(matches!(next(Duration::ZERO), Next::Give(2)), "it is insisted on");
        assert!(matches!(next(Duration::ZERO), Next::Wait(None)), "3 is not here");
    }
}
