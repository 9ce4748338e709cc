//! Who writes blocks of catalogues that no root names yet: meanwhile none are swept, and while they are swept nobody
//! begins to write.

use std::sync::{Arc, Condvar, Mutex};

const LOCK: &str = "nothing panics under this lock";

#[derive(Default)]
pub(super) struct Writers {
    state: Mutex<State>,
    swept: Condvar,
}

#[derive(Default)]
struct State {
    writing: usize,
    sweeping: bool,
}

/// Somebody writes, until this is dropped.
pub(super) struct Writing(Arc<Writers>);

/// Nobody writes, until this is dropped.
pub(super) struct Sweeping(Arc<Writers>);

impl Writers {
    /// Waits for the end of a sweep.
    pub(super) fn begin(self: &Arc<Self>) -> Writing {
        let state = self.state.lock().expect(LOCK);
        let mut state = self.swept.wait_while(state, |state| state.sweeping).expect(LOCK);
        state.writing += 1;
        Writing(self.clone())
    }

    /// `None` while somebody writes, or sweeps already.
    pub(super) fn sweep(self: &Arc<Self>) -> Option<Sweeping> {
        let mut state = self.state.lock().expect(LOCK);
        if state.writing > 0 || state.sweeping {
            return None;
        }
        state.sweeping = true;
        Some(Sweeping(self.clone()))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.state.lock().expect(LOCK).writing -= 1;
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.state.lock().expect(LOCK).sweeping = false;
        self.0.swept.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn one_or_the_other() {
        let writers = Arc::new(Writers::default());
        let (one, two) = (writers.begin(), writers.begin());
        assert!(writers.sweep().is_none());
        drop(one);
        assert!(writers.sweep().is_none());
        drop(two);
        let sweeping = writers.sweep().expect("nobody writes");
        assert!(writers.sweep().is_none(), "one at a time");
        let over = Arc::new(AtomicBool::new(false));
        let (theirs, is_over) = (writers.clone(), over.clone());
        let writer = std::thread::spawn(move || {
            let _writing = theirs.begin();
            is_over.load(Ordering::SeqCst)
        });
        over.store(true, Ordering::SeqCst);
        drop(sweeping);
        assert!(writer.join().unwrap(), "it waited for the end of the sweep");
    }
}
