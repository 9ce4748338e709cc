//! Who is about to fetch what from upstream: the leases that make a download one on the whole LAN.
//!
//! Nobody grants a lease. Every node that misses an artifact tells all others so ("claim") and hears who else does; the
//! two of them see from their peer ids, without another word, who goes first. See [`goes_first`].

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::{Digest, PeerId, Sha256};

/// How long a claim of another node is believed without being seen to fly.
pub const CLAIM_TIME: Duration = Duration::from_secs(10);

/// Claims of one peer that are remembered: it has 64 downloads at once, and each of them claims for 10 s at most. Beyond
/// it the oldest is forgotten, and costs a second fetch at worst. With [`PEERS`] peers all are 2 MB.
const CLAIMS: usize = 128;

/// Peers whose claims are remembered: as many as are ever connected. Those of further ones are not, with the same cost.
const PEERS: usize = 128;

/// Claims of others.
#[derive(Default)]
pub struct Claims {
    theirs: Mutex<HashMap<PeerId, HashMap<Digest, Instant>>>,
}

impl Claims {
    /// A peer says that it is about to fetch an artifact.
    pub fn claimed(&self, digest: Digest, peer: PeerId, now: Instant) {
        let mut theirs = self.theirs.lock().expect("nothing panics under this lock");
        if theirs.len() >= PEERS && !theirs.contains_key(&peer) {
            // Of peers that went while their question was being answered.
            theirs.retain(|_, its| its.values().any(|at| now.saturating_duration_since(*at) < CLAIM_TIME));
            if theirs.len() >= PEERS {
                return;
            }
        }
        let its = theirs.entry(peer).or_default();
        if its.len() >= CLAIMS && !its.contains_key(&digest) {
            its.retain(|_, at| now.saturating_duration_since(*at) < CLAIM_TIME);
            let oldest = its.iter().min_by_key(|(_, at)| **at).map(|(digest, _)| *digest);
            if let Some(oldest) = oldest.filter(|_| its.len() >= CLAIMS) {
                its.remove(&oldest);
            }
        }
        its.insert(digest, now);
    }

    /// Who claims an artifact now.
    pub fn of(&self, digest: &Digest, now: Instant) -> Vec<PeerId> {
        let theirs = self.theirs.lock().expect("nothing panics under this lock");
        let holds = |at: &Instant| now.saturating_duration_since(*at) < CLAIM_TIME;
        theirs.iter().filter(|(_, its)| its.get(digest).is_some_and(holds)).map(|(peer, _)| *peer).collect()
    }

    /// A peer is gone, and its claims with it.
    pub fn left(&self, peer: &PeerId) {
        self.theirs.lock().expect("nothing panics under this lock").remove(peer);
    }
}

/// Whether `a` goes before `b` where both claim `digest`. Both get the same answer, and over many artifacts each goes
/// first as often as the other.
pub fn goes_first(digest: &Digest, a: &PeerId, b: &PeerId) -> bool {
    let rank = |peer: &PeerId| {
        let mut bytes = digest.bytes().to_vec();
        bytes.extend(peer.to_bytes());
        (Sha256::of(&bytes).0, peer.to_bytes())
    };
    rank(a) < rank(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn exactly_one_goes_first_and_not_always_the_same() {
        let mut firsts = 0;
        for n in 0..200u8 {
            let digest = Sha256::of(&[n]).digest();
            let (ab, ba) = (goes_first(&digest, &peer(1), &peer(2)), goes_first(&digest, &peer(2), &peer(1)));
            assert_ne!(ab, ba);
            firsts += u32::from(ab);
        }
        assert!((60..140).contains(&firsts), "{firsts} of 200");
        assert!(!goes_first(&Sha256::of(b"").digest(), &peer(1), &peer(1)));
    }

    #[test]
    fn claims_pass_and_are_bounded() {
        let (claims, now) = (Claims::default(), Instant::now());
        let digest = Sha256::of(b"x").digest();
        claims.claimed(digest, peer(1), now);
        assert_eq!(claims.of(&digest, now), [peer(1)]);
        assert!(claims.of(&digest, now + CLAIM_TIME).is_empty());
        claims.left(&peer(1));
        assert!(claims.of(&digest, now).is_empty());
        for n in 0..5000u32 {
            claims.claimed(
                Sha256::of(&n.to_be_bytes()).digest(),
                peer(1),
                now + Duration::from_millis(n.into()),
            );
        }
        assert_eq!(claims.theirs.lock().unwrap()[&peer(1)].len(), CLAIMS);
        let last = Sha256::of(&4999u32.to_be_bytes()).digest();
        assert_eq!(claims.of(&last, now + Duration::from_secs(5)), [peer(1)], "the newest are kept");
        for n in 2..200u8 {
            claims.claimed(digest, peer(n), now);
        }
        assert_eq!(claims.theirs.lock().unwrap().len(), PEERS);
    }
}
