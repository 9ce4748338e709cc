//! Public keys of peers, which prove that a peer id's owner said something.

use std::fmt;

use libp2p_identity::PublicKey;

use super::PeerId;

/// Longest encoded key in bytes: RSA of 8,192 bits, the largest that libp2p takes, has 1,064.
const KEY_BYTES: usize = 1200;

/// A peer's public key, of any kind that libp2p has and this build knows: Ed25519 and RSA.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerKey(PublicKey);

impl PeerKey {
    /// From libp2p's protobuf form (libp2p specs, peer-ids, "Keys").
    pub fn parse(protobuf: &[u8]) -> Result<Self, PeerKeyError> {
        if protobuf.len() > KEY_BYTES {
            return Err(PeerKeyError::TooLong(protobuf.len()));
        }
        let key = PublicKey::try_decode_protobuf(protobuf).map_err(|_| PeerKeyError::Unreadable)?;
        Ok(Self(key))
    }

    /// In libp2p's protobuf form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.encode_protobuf()
    }

    /// Whose it is.
    pub fn peer_id(&self) -> PeerId {
        self.0.to_peer_id()
    }

    /// Whether its owner signed the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify(message, signature)
    }
}

impl From<PublicKey> for PeerKey {
    fn from(key: PublicKey) -> Self {
        Self(key)
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.peer_id())
    }
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerKeyError {
    /// Longer than any.
    #[error("a key of {0} bytes, {KEY_BYTES} are allowed")]
    TooLong(usize),
    /// No key, or of a kind that is not known.
    #[error("no public key of a kind that dpm knows (Ed25519, RSA)")]
    Unreadable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;
    use libp2p_identity::Keypair;

    #[test]
    fn both_kinds() {
        let mut rsa = include_bytes!("../../tests/fixtures/rsa-peer.pk8").to_vec();
        for pair in [Keypair::generate_ed25519(), Keypair::rsa_from_pkcs8(&mut rsa).unwrap()] {
            let key = PeerKey::from(pair.public());
            let bytes = key.to_bytes();
            assert_eq!(PeerKey::parse(&bytes), Ok(key.clone()));
            assert_eq!(key.peer_id(), pair.public().to_peer_id());
            let signature = pair.sign(b"said").unwrap();
            assert!(key.verifies(b"said", &signature));
            assert!(!key.verifies(b"not said", &signature));
            assert!(!key.verifies(b"said", &signature[1..]));
            assert!(!key.verifies(b"said", b""));
            mutations(&[&bytes], 500, |bytes| {
                if let Ok(key) = PeerKey::parse(bytes) {
                    assert!(!key.verifies(b"", b""));
                }
            });
        }
        assert_eq!(PeerKey::parse(b""), Err(PeerKeyError::Unreadable));
        assert_eq!(PeerKey::parse(&[0; 1201]), Err(PeerKeyError::TooLong(1201)));
    }
}
