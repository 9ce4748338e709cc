//! One pass over the bytes: every digest that somebody will ask for.

use crate::base::{Algorithm, Digest, Hasher, Sha256};
use crate::unixfs::{Layout, LayoutBuilder};

/// Hashes an artifact in order, once.
#[derive(Clone)]
pub(super) struct Verifier {
    ours: Hasher,
    /// The upstream's digest where it is not SHA-256.
    theirs: Option<Hasher>,
    want: Option<Digest>,
    layout: LayoutBuilder,
    /// Bytes taken so far.
    pub(super) at: u64,
}

/// What the bytes turned out to be.
pub(super) struct Verified {
    pub(super) sha256: Sha256,
    pub(super) theirs: Option<Digest>,
    pub(super) layout: Layout,
}

impl Verifier {
    pub(super) fn new(want: Option<Digest>) -> Self {
        let theirs = want.map(|d| d.algorithm()).filter(|a| *a != Algorithm::Sha256).map(Hasher::new);
        Self { ours: Hasher::new(Algorithm::Sha256), theirs, want, layout: LayoutBuilder::default(), at: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.ours.update(bytes);
        if let Some(theirs) = &mut self.theirs {
            theirs.update(bytes);
        }
        self.layout.update(bytes);
        self.at += bytes.len() as u64;
    }

    /// Takes a chunk whose SHA-256 is known, where one begins.
    pub(super) fn update_chunk(&mut self, bytes: &[u8], leaf: Sha256) {
        self.ours.update(bytes);
        if let Some(theirs) = &mut self.theirs {
            theirs.update(bytes);
        }
        self.layout.push(bytes.len() as u64, leaf);
        self.at += bytes.len() as u64;
    }

    /// The SHA-256 of each chunk that is whole.
    pub(super) fn leaves(&self) -> &[Sha256] {
        self.layout.leaves()
    }

    /// Errors with what was wanted and what came.
    pub(super) fn finish(self) -> Result<Verified, (Digest, Digest)> {
        let ours = self.ours.finish();
        let theirs = self.theirs.map(Hasher::finish);
        let got = theirs.unwrap_or(ours);
        match self.want {
            Some(want) if want != got => Err((want, got)),
            _ => {
                let sha256 = ours.sha256().expect("our hasher is SHA-256");
                Ok(Verified { sha256, theirs, layout: self.layout.finish() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_held_to() {
        for algorithm in Algorithm::ALL {
            let mut h = Hasher::new(algorithm);
            h.update(b"right");
            let want = h.finish();
            for (bytes, ok) in [(&b"right"[..], true), (b"wrong", false), (b"righ", false), (b"", false)] {
                let mut v = Verifier::new(Some(want));
                v.update(bytes);
                assert_eq!(v.finish().is_ok(), ok, "{algorithm} {bytes:?}");
            }
        }
    }
}
