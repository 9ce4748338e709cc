//! A sink for log lines: whoever writes never waits for the terminal or the disk.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Bytes that may wait to be written. Beyond it lines are dropped and counted: a stuck terminal stops no client.
const WAITING_BYTES: usize = 1 << 20;

/// How long a line may wait for company.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes lines in batches on a thread of its own; clones share it.
#[derive(Clone)]
pub struct Lines {
    inner: Arc<Inner>,
}

struct Inner {
    waiting: Mutex<Waiting>,
    news: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    closed: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`. It ends when the last clone is gone.
    pub fn start(mut out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let inner =
            Arc::new(Inner { waiting: Mutex::default(), news: Condvar::new(), dropped: AtomicU64::new(0) });
        let theirs = Arc::downgrade(&inner);
        std::thread::Builder::new().name("dpm-log".into()).spawn(move || {
            while let Some(inner) = theirs.upgrade() {
                let (batch, closed) = inner.batch();
                drop(inner);
                // A log that cannot be written has nowhere to say so.
                let _ = out.write_all(&batch).and_then(|()| out.flush());
                if closed {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        })?;
        Ok(Self { inner })
    }

    /// Adds a line; `write` appends it without the line's end.
    pub fn add(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.inner.waiting.lock().expect(LOCK);
        if waiting.bytes.len() > WAITING_BYTES {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = waiting.bytes.is_empty();
        write(&mut waiting.bytes);
        waiting.bytes.push(b'\n');
        if first {
            self.inner.news.notify_one();
        }
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is left, soon, and no more after it.
    pub fn close(&self) {
        self.inner.waiting.lock().expect(LOCK).closed = true;
        self.inner.news.notify_one();
    }
}

impl Inner {
    /// Waits for lines, a second at most, and takes them.
    fn batch(&self) -> (Vec<u8>, bool) {
        let waiting = self.waiting.lock().expect(LOCK);
        let idle = |w: &mut Waiting| w.bytes.is_empty() && !w.closed;
        let (mut waiting, _) =
            self.news.wait_timeout_while(waiting, Duration::from_secs(1), idle).expect(LOCK);
        let closed = waiting.closed;
        (std::mem::take(&mut waiting.bytes), closed)
    }
}

const LOCK: &str = "writing a line into memory does not panic";
