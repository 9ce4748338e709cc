//! Tasks that somebody owns.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_executor::Task;
use event_listener::Event;
use futures_lite::FutureExt;

/// Panics caught in tasks since the process started: each is a bug of ours.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many tasks of this process have panicked.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The threads that drive tasks. Dropping it stops them once their current poll returns.
pub struct Executor {
    inner: Arc<async_executor::Executor<'static>>,
    stop: Arc<Event>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Executor {
    /// Starts `threads` threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let inner = Arc::new(async_executor::Executor::new());
        let stop = Arc::new(Event::new());
        let threads = (0..threads.max(1))
            .map(|n| {
                let (inner, listener) = (inner.clone(), stop.listen());
                std::thread::Builder::new()
                    .name(format!("dpm-{n}"))
                    .spawn(move || async_io::block_on(inner.run(listener)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { inner, stop, threads })
    }

    /// An empty set of tasks that run here.
    pub fn tasks(&self) -> Tasks {
        Tasks { executor: self.inner.clone(), set: Arc::default() }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop.notify(usize::MAX);
        for thread in self.threads.drain(..) {
            // A panic in a task is caught in `Tasks`; one here has already been printed.
            let _ = thread.join();
        }
    }
}

/// A set of tasks with one owner. Dropping the last clone cancels them.
#[derive(Clone)]
pub struct Tasks {
    executor: Arc<async_executor::Executor<'static>>,
    set: Arc<Mutex<Set>>,
}

/// Starts tasks in a set that somebody else owns; see [`Tasks::spawner`].
#[derive(Clone, Debug)]
pub struct Spawner {
    executor: Weak<async_executor::Executor<'static>>,
    set: Weak<Mutex<Set>>,
}

impl Spawner {
    /// As [`Tasks::spawn`]. Drops `future` when the set is gone.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let (Some(executor), Some(set)) = (self.executor.upgrade(), self.set.upgrade()) {
            Tasks { executor, set }.spawn(future);
        }
    }
}

#[derive(Debug, Default)]
struct Set {
    next: u64,
    running: HashMap<u64, Task<()>>,
    ended: Vec<u64>,
}

impl Set {
    fn reap(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            self.running.remove(&id);
        }
    }
}

impl Tasks {
    /// An empty set on the same threads.
    pub fn sibling(&self) -> Self {
        Self { executor: self.executor.clone(), set: Arc::default() }
    }

    /// A handle that starts tasks in this set and does not keep it: for what lives inside the set's own tasks.
    pub fn spawner(&self) -> Spawner {
        Spawner { executor: Arc::downgrade(&self.executor), set: Arc::downgrade(&self.set) }
    }

    /// Starts a task that belongs to this set. A panic in it is counted in [`panics`] and logged.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let weak = Arc::downgrade(&self.set);
        let mut set = self.set.lock().expect("no panic while the set is locked");
        set.reap();
        let id = set.next;
        set.next += 1;
        let task = self.executor.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                PANICS.fetch_add(1, Ordering::Relaxed);
                log::error!("a task panicked: {}", message(&*panic));
            }
            if let Some(set) = weak.upgrade() {
                set.lock().expect("no panic while the set is locked").ended.push(id);
            }
        });
        set.running.insert(id, task);
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        let mut set = self.set.lock().expect("no panic while the set is locked");
        set.reap();
        set.running.len()
    }

    /// Waits until every task has ended by itself.
    pub async fn finish(&self) {
        while let Some(task) = self.take_one() {
            task.await;
        }
    }

    /// Cancels every task and waits until each is gone.
    pub async fn cancel(&self) {
        while let Some(task) = self.take_one() {
            task.cancel().await;
        }
    }

    fn take_one(&self) -> Option<Task<()>> {
        let mut set = self.set.lock().expect("no panic while the set is locked");
        let id = *set.running.keys().next()?;
        set.running.remove(&id)
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_listener::Listener;

    #[test]
    fn a_panic_is_counted_and_the_set_goes_on() {
        let executor = Executor::start(2).unwrap();
        let tasks = executor.tasks();
        let before = panics();
        let done = Arc::new(Event::new());
        let listener = done.listen();
        tasks.spawn(async { panic!("on purpose") });
        futures_lite::future::block_on(tasks.finish());
        tasks.spawn({
            let done = done.clone();
            async move {
                done.notify(1);
            }
        });
        listener.wait();
        assert_eq!(panics(), before + 1);
        futures_lite::future::block_on(tasks.finish());
        assert_eq!(tasks.running(), 0);
    }

    #[test]
    fn cancel_ends_what_would_wait_for_ever() {
        let executor = Executor::start(1).unwrap();
        let tasks = executor.tasks();
        tasks.spawn(std::future::pending());
        futures_lite::future::block_on(tasks.cancel());
        assert_eq!(tasks.running(), 0);
    }
}
