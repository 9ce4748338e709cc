//! The gate between async tasks and blocking work: so many at once and no more.

use std::sync::Arc;

use async_lock::Semaphore;

/// Runs blocking closures on a thread pool, at most `permits` at once; the others wait in line.
///
/// The pool's own default of 500 threads is no limit for a small box.
#[derive(Clone)]
pub struct Gate {
    permits: Arc<Semaphore>,
}

impl Gate {
    /// A gate for `permits` closures at once.
    pub fn new(permits: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)) }
    }

    /// Runs `work` and waits for it.
    ///
    /// Cancel-safe in this sense: a caller dropped while waiting in line starts nothing; once started,
    /// `work` runs to its end, so it must leave nothing half-written.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = self.permits.acquire_arc().await;
        blocking::unblock(move || {
            let _permit = permit;
            work()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_permits_at_once() {
        let gate = Gate::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        futures_lite::future::block_on(async {
            let all: Vec<_> = (0..24)
                .map(|_| {
                    let (gate, now, most) = (gate.clone(), now.clone(), most.clone());
                    async move {
                        gate.run(move || {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            now.fetch_sub(1, Ordering::SeqCst);
                        })
                        .await;
                    }
                })
                .map(|f| Box::pin(f) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>)
                .collect();
            let ex = async_executor::Executor::new();
            let tasks: Vec<_> = all.into_iter().map(|f| ex.spawn(f)).collect();
            ex.run(async {
                for t in tasks {
                    t.await;
                }
            })
            .await;
        });
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }
}
