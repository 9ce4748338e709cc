//! Bitswap 1.2: blocks to and from any IPFS node (specs.ipfs.tech, "Bitswap protocol").
//!
//! What peers want stands in a `ledger`, pure; one task a peer answers it (`give`) on a stream of our own (`say`). Streams
//! that peers open, and the answers on ours, are read by `hear`. What we want of peers is written by one task a peer
//! (`ask`); a [`Fetching`] schedules the blocks of one DAG over its peers (`fetch`), in an order that `walk`, pure, finds
//! out from the blocks themselves; `file` puts a file together.
//!
//! Other makers' habits that are met here: Helia sends one message a stream and closes what it does not use, Kubo keeps
//! streams open, py-libp2p answers on the stream that asked.

mod ask;
mod fetch;
mod file;
mod give;
mod hear;
mod ledger;
mod say;
mod walk;

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use crate::base::PeerId;

use super::Exchange;

pub use fetch::{Absence, DagLimits, FetchError, Fetching};
pub use file::Fetched;
pub use walk::{Got, WalkError};

pub(super) use give::watch;
pub(super) use hear::serve;

/// What this room remembers, for as long as the exchange lives.
#[derive(Default)]
pub(super) struct Bitswap {
    giving: give::Giving,
    hearing: hear::Hearing,
    asking: ask::Asking,
    places: fetch::Places,
}

impl Exchange {
    /// A peer is gone: it wants nothing any more, and gives nothing.
    pub(super) fn left_bitswap(&self, peer: &PeerId) {
        self.inner.bitswap.giving.gone(peer);
        self.inner.bitswap.asking.gone(peer);
    }
}

/// An operation, or an error once its time is over.
async fn within<T>(time: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    futures_lite::future::or(work, async {
        async_io::Timer::after(time).await;
        Err(Error::new(ErrorKind::TimedOut, format!("{what} took longer than {} s", time.as_secs_f32())))
    })
    .await
}

const LOCK: &str = "no panic happens under this lock";
