//! The swarm: a libp2p node over our own QUIC transport. Connections, identities and streams; knows no packages.
//!
//! Pure: whom to dial (`dial`), addresses (`address`). Then bottom-up: the key (`identity`), TLS (`tls`), quinn's settings
//! (`quic`), its sockets and timers on our executor (`socket`, `runtime`), libp2p's transport and muxer over it
//! (`listener`, `transport`, `muxer`), who may be connected (`gate`), streams by protocol (`streams`), the task that
//! drives it all (`node`) and the handle that others hold (`handle`).
//!
//! A peer is its peer id: every handshake proves it, and everything else that a peer says is a claim.

mod address;
mod dial;
mod error;
mod gate;
mod handle;
mod identity;
mod limits;
mod listener;
mod muxer;
mod node;
mod quic;
#[doc(hidden)]
pub mod raw;
mod runtime;
mod socket;
mod streams;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use address::{ip_of, socket_of, without_peer};
pub use dial::Sought;
pub use error::SwarmError;
pub use gate::Admit;
pub use handle::{Event, Events, Options, PeerInfo, Stream, Swarm};
pub use identity::Identity;
pub use limits::Limits;
