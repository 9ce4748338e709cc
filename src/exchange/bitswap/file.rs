//! A file put together from its blocks.

use bytes::Bytes;

use crate::base::{Algorithm, Cid, Hasher, PeerId, Sha256};

use super::super::Exchange;
use super::fetch::{DagLimits, FetchError};

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes.
    pub size: u64,
    /// Of the whole.
    pub sha256: Sha256,
    /// Who gave how many bytes, and how fast in bytes a second.
    pub gave: Vec<(PeerId, u64, Option<u64>)>,
}

impl Exchange {
    /// Fetches a file by its CID, of any chunk size and width, and gives its bytes to `sink` from the front without gaps:
    /// offset and bytes. See [`Exchange::fetch_dag`] for `peers`.
    ///
    /// The bytes are the file that the CID names; whether they are the artifact that somebody wants, only its digest
    /// tells. `sink` must not block for long: it runs on a thread that drives others too. Cancel-safe, but for what
    /// `sink` has got already.
    pub async fn fetch_file(
        &self,
        cid: Cid,
        peers: &[PeerId],
        limits: DagLimits,
        mut sink: impl FnMut(u64, Bytes) -> std::io::Result<()>,
    ) -> Result<Fetched, FetchError> {
        let mut fetching = self.fetch_dag(cid, peers, limits).await?;
        let (mut hasher, mut size) = (Hasher::new(Algorithm::Sha256), 0);
        while let Some(got) = fetching.next().await? {
            if got.content.is_empty() {
                continue;
            }
            debug_assert_eq!(got.offset, size, "without gaps");
            size = got.offset + got.content.len() as u64;
            let bytes = got.content.clone();
            hasher = self
                .inner
                .disk
                .run(move || {
                    hasher.update(&bytes);
                    hasher
                })
                .await;
            sink(got.offset, got.content).map_err(FetchError::Sink)?;
        }
        fetching.thank();
        let sha256 = hasher.finish().sha256().expect("a SHA-256 hasher");
        Ok(Fetched { size, sha256, gave: fetching.gave() })
    }
}
