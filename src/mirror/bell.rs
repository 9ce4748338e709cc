//! Wakes a loop: rung often, heard once.

use async_channel::{Receiver, Sender};

/// Clones are one bell.
#[derive(Clone, Debug)]
pub(super) struct Bell(Sender<()>, Receiver<()>);

impl Default for Bell {
    fn default() -> Self {
        let (sender, receiver) = async_channel::bounded(1);
        Self(sender, receiver)
    }
}

impl Bell {
    /// A bell that rings already rings once all the same.
    pub(super) fn ring(&self) {
        let _ = self.0.try_send(());
    }

    /// Waits until it rings. For one listener. Cancel-safe.
    pub(super) async fn heard(&self) {
        // Both ends are here, so it is never closed.
        let _ = self.1.recv().await;
    }
}
