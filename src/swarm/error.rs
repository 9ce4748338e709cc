//! What can go wrong in the swarm.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Multiaddr, PeerId};

/// Why the swarm could not do something; each variant says what the caller may do about it.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The key file could not be read or written: a matter of the data folder.
    #[error("the key file {} could not be used", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read the key file, so it may be known to others already: `chmod 600` it, or remove it for a new one.
    #[error("the key file {} may be read by others (mode {mode:04o}); it must be 0600", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no Ed25519 key: restore it, or remove it for a new identity.
    #[error("the key file {} holds no Ed25519 key of libp2p's form: {reason}", path.display())]
    KeyMalformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS certificate could not be made: not the caller's fault.
    #[error("no TLS certificate could be made: {0}")]
    Certificate(String),
    /// Somebody else has the UDP port: try another.
    #[error("the UDP port of {address} is taken")]
    PortTaken {
        /// The address asked for.
        address: Multiaddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An address that the swarm cannot use at all.
    #[error("{address} is no address of the swarm: {reason}")]
    Address {
        /// The address.
        address: Multiaddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no connection to the peer: dial it, or ask another.
    #[error("{peer} is not connected")]
    NotConnected {
        /// Who was asked.
        peer: PeerId,
    },
    /// The peer does not speak the protocol: do not ask it again.
    #[error("{peer} does not speak {protocol}")]
    Unsupported {
        /// Who was asked.
        peer: PeerId,
        /// What for.
        protocol: &'static str,
    },
    /// The peer did not answer in time.
    #[error("{peer} opened no stream in {limit:?}")]
    TimedOut {
        /// Who was asked.
        peer: PeerId,
        /// How long it had.
        limit: Duration,
    },
    /// Too many streams to that peer wait to be opened: the caller asks for more than the peer takes.
    #[error("too many streams to {peer} wait to be opened")]
    Busy {
        /// Who was asked.
        peer: PeerId,
    },
    /// The connection broke while the stream was opened.
    #[error("the stream to {peer} could not be opened")]
    Open {
        /// Who was asked.
        peer: PeerId,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The swarm has been stopped.
    #[error("the swarm has stopped")]
    Stopped,
}
