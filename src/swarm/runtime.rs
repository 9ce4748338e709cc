//! quinn on our executor: its tasks belong to the swarm's set, its timers are async-io's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::Timer;
use quinn::{AsyncTimer, AsyncUdpSocket};

use super::socket::Socket;
use crate::rt::Spawner;

/// What quinn asks of a runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    spawner: Spawner,
}

impl Runtime {
    /// Starts quinn's tasks by `spawner`.
    pub(super) fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Clock(Timer::at(at)))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.spawner.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::wrap(socket)?))
    }
}

/// A timer of async-io.
#[derive(Debug)]
struct Clock(Timer);

impl AsyncTimer for Clock {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.0.set_at(at);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}
