//! What comes and goes, for whoever tells others of it.

use crate::base::Sha256;

use super::{LOCK, Store};

/// Changes that wait for one watcher. One that falls behind loses its watch, and lists all again.
const WAITING: usize = 4096;

/// Watchers at once: one for each node that is told.
const WATCHERS: usize = 256;

/// A change of what anybody may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An artifact was committed.
    Added(Sha256),
    /// One was taken out.
    Removed(Sha256),
}

impl Store {
    /// Changes of public artifacts from now on; ended when the watcher falls behind, or when there are too many.
    pub fn watch(&self) -> async_channel::Receiver<Change> {
        let (sender, receiver) = async_channel::bounded(WAITING);
        let mut watchers = self.inner.watchers.lock().expect(LOCK);
        watchers.retain(|w| !w.is_closed());
        if watchers.len() < WATCHERS {
            watchers.push(sender);
        }
        receiver
    }

    pub(super) fn tell(&self, change: Change) {
        self.inner.watchers.lock().expect(LOCK).retain(|w| w.try_send(change).is_ok());
    }
}
