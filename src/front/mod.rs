//! The door: accepts clients, one handler for all ecosystems, the table from errors to HTTP.
//!
//! Knows `resolve` for names and `fetch` for bytes, and is the only one that visits both. Knows nothing of
//! peers, rooms or upstreams.

mod apt;
mod body;
mod conditions;
mod connection;
mod content;
mod door;
mod ipfs;
mod metrics;
mod names;
mod oci;
mod pypi;
mod reply;
mod server;
mod wire;

pub use body::Out;
pub use conditions::{Ranged, ranged};
pub use door::{Door, Gauges, Labelled, Parts};
pub use metrics::Metrics;
pub use names::Names;
pub use oci::Clients;
pub use server::{Answering, Handler, Listener, serve};

/// A socket as hyper's client wants it: for whoever talks to a node's control socket.
pub fn io(
    socket: async_io::Async<std::os::unix::net::UnixStream>,
) -> impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static {
    connection::Connection::new(socket, crate::rt::Ticker::default())
}
