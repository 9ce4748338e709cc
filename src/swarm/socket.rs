//! A UDP socket as quinn wants it, on async-io.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_io::Async;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Type};

/// Wanted size of the kernel's buffers, each way.
///
/// With the kernel's default of 208 KiB a fast sender overruns the receiver: a transfer on loopback lost thousands of
/// packets, and none with 2 MiB.
const BUFFER_BYTES: usize = 2 << 20;

/// Binds a UDP socket to `address`. One for IPv6 leaves IPv4 alone, so that both can listen on one port.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: Async<UdpSocket>,
    state: UdpSocketState,
}

impl Socket {
    /// Takes a bound socket and widens its buffers as far as the kernel allows.
    pub(super) fn wrap(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // Refused is not failed: what the kernel gave is read back.
        let _ = state.set_recv_buffer_size((&socket).into(), BUFFER_BYTES);
        let _ = state.set_send_buffer_size((&socket).into(), BUFFER_BYTES);
        warn_once(&RECEIVE_WARNED, "rmem_max", "receive", state.recv_buffer_size((&socket).into())?);
        warn_once(&SEND_WARNED, "wmem_max", "send", state.send_buffer_size((&socket).into())?);
        Ok(Self { io: Async::new_nonblocking(socket)?, state })
    }
}

static RECEIVE_WARNED: AtomicBool = AtomicBool::new(false);
static SEND_WARNED: AtomicBool = AtomicBool::new(false);

/// `bytes` as Linux tells them: twice what may be used, the other half being its own bookkeeping.
fn warn_once(warned: &AtomicBool, setting: &str, which: &str, bytes: usize) {
    let usable = if cfg!(target_os = "linux") { bytes / 2 } else { bytes };
    if usable < BUFFER_BYTES && !warned.swap(true, Ordering::Relaxed) {
        log::warn!(
            "the kernel gives UDP sockets a {which} buffer of {} KiB only, so fast transfers between nodes lose \
             packets: set net.core.{setting} to {BUFFER_BYTES} or more, as cross/etc/sysctl.d/60-dpm.conf does",
            usable >> 10
        );
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send((&self.io).into(), transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_readable(cx))?;
            // An error is news of a datagram sent earlier, to somebody who is not there: no matter of the others.
            if let Ok(count) = self.state.recv((&self.io).into(), buffers, meta) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits until the socket takes bytes again; each connection has its own.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<WritableSocket>,
}

/// The future of one wait. It keeps the socket that its reactor entry belongs to.
type WritableSocket = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, waiting } = &mut *self;
        let future = waiting.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let done = ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(done)
    }
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_what_is_wanted() {
        let shipped = include_str!("../../cross/etc/sysctl.d/60-dpm.conf");
        for setting in ["rmem_max", "wmem_max"] {
            let line = format!("net.core.{setting} = {BUFFER_BYTES}");
            assert!(shipped.lines().any(|has| has == line), "{line}");
        }
    }
}
