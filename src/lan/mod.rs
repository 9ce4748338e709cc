//! The local network: who is near (mDNS), and what this box tells people's machines about itself.
//!
//! Tells where peers say that they are; what is done with that is somebody else's. Knows nothing of packages and opens
//! no connection.
//!
//! | file | role |
//! |---|---|
//! | `discovery`, `node` | [`Discovery`], and the task behind it that asks, answers and listens |
//! | `packet` | bytes to questions and peers, and back |
//! | `addresses` | which addresses are told, which are believed |
//! | `memory`, `turn`, `rates` | who is known, when to send, how much is taken from whom |
//! | `socket` | interfaces and multicast sockets |
//! | `services` | [`Services`]: the box as people's machines look for it |

mod addresses;
mod discovery;
mod memory;
mod node;
mod packet;
mod rates;
mod services;
mod socket;
mod turn;

pub use discovery::{Counts, Discovery, Limits, Options, Sighting};
pub use services::{INSTANCE_BYTES, STOP_TIME, ServiceOptions, Services};

/// The networks that this machine's interfaces are in, as they are now; none when the system does not tell.
pub fn networks() -> Vec<crate::base::Subnet> {
    socket::interfaces().unwrap_or_default().into_iter().flat_map(|i| i.subnets).collect()
}

/// Reads a datagram as discovery would: no bytes make it panic. For fuzzing.
pub fn fuzz_packet(bytes: &[u8]) {
    packet::fuzz(bytes);
}

/// Numbers that spread things: delays, a label. Nobody gains by guessing them.
struct Random(std::hash::RandomState, u64);

impl Default for Random {
    fn default() -> Self {
        Self(std::hash::RandomState::new(), 0)
    }
}

impl Random {
    fn next(&mut self) -> u32 {
        use std::hash::BuildHasher;
        self.1 += 1;
        (self.0.hash_one(self.1) >> 32) as u32
    }
}

/// Why the local network cannot be told, or heard.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// The system does not say which interfaces there are.
    #[error("the network interfaces cannot be listed")]
    Interfaces(#[source] std::io::Error),
    /// The services cannot be published.
    #[error("the services cannot be published")]
    Services(#[source] mdns_sd::Error),
    /// A name that is none: one label of letters, digits and hyphens.
    #[error("{0:?} is no host name: letters, digits and hyphens, at most 63")]
    Name(String),
}
