//! Coarse deadlines: one ticker for thousands of connections.
//!
//! A precise timer for every request wakes the reactor each time it becomes the next one due; a client's idle time
//! needs no more than a second's precision. What that saves was not measured.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Keeps deadlines and wakes those that have passed; [`Ticker::run`] must be somebody's task.
#[derive(Clone)]
pub struct Ticker {
    inner: Arc<Inner>,
}

struct Inner {
    start: Instant,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, (Arc<AtomicU64>, Waker)>>,
}

impl Default for Ticker {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                start: Instant::now(),
                next: AtomicU64::new(0),
                waiting: Mutex::default(),
            }),
        }
    }
}

impl Ticker {
    /// Wakes what is due, for ever.
    pub async fn run(self) {
        loop {
            async_io::Timer::after(TICK).await;
            let now = self.inner.millis(Instant::now());
            let mut waiting = self.inner.waiting.lock().expect("nothing panics under this lock");
            waiting.retain(|_, (at, waker)| {
                let due = at.load(Ordering::Relaxed) <= now;
                if due {
                    waker.wake_by_ref();
                }
                !due
            });
        }
    }

    /// A deadline at `at`: late by one tick at most.
    pub fn deadline(&self, at: Instant) -> Deadline {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        Deadline {
            inner: self.inner.clone(),
            id,
            at: Arc::new(AtomicU64::new(self.inner.millis(at))),
            registered: false,
        }
    }
}

impl Inner {
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Becomes ready once its time has passed; can be moved at no cost.
pub struct Deadline {
    inner: Arc<Inner>,
    id: u64,
    at: Arc<AtomicU64>,
    registered: bool,
}

impl Deadline {
    /// Moves the deadline. Whoever awaits it goes on waiting.
    pub fn reset(&mut self, at: Instant) {
        self.at.store(self.inner.millis(at), Ordering::Relaxed);
    }
}

impl Future for Deadline {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.at.load(Ordering::Relaxed) <= this.inner.millis(Instant::now()) {
            return Poll::Ready(());
        }
        let mut waiting = this.inner.waiting.lock().expect("nothing panics under this lock");
        this.registered = true;
        match waiting.get_mut(&this.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                waiting.insert(this.id, (this.at.clone(), cx.waker().clone()));
            }
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if self.registered {
            self.inner.waiting.lock().expect("nothing panics under this lock").remove(&self.id);
        }
    }
}
