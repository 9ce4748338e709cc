//! Who this node is: an Ed25519 key pair in a file that only its owner can read.
//!
//! The file holds libp2p's protobuf form of a private key (libp2p specs, peer-ids), so that other tools can read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use libp2p_identity::{KeyType, Keypair};

use super::SwarmError;
use crate::base::{PeerId, PeerKey};

/// A key file's largest size in bytes: an Ed25519 key in protobuf has 68.
const KEY_BYTES: u64 = 4096;

/// A node's key pair. Its public half is the peer id.
#[derive(Clone)]
pub struct Identity {
    key: Keypair,
}

impl Identity {
    /// A new identity that is written nowhere.
    pub fn fresh() -> Self {
        Self { key: Keypair::generate_ed25519() }
    }

    /// Reads the identity in the file `path`, or makes one there with mode 0600.
    ///
    /// The file appears whole or not at all; of two processes that make it at once, both get the first one's.
    /// Refuses a file that others may read, and one that holds anything but an Ed25519 key. Blocks on the disk.
    pub fn load_or_create(path: &Path) -> Result<Self, SwarmError> {
        let failed = |source| SwarmError::KeyFile { path: path.into(), source };
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
            Ok(file) => Self::load(path, file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let fresh = Self::fresh();
                if fresh.save(path).map_err(failed)? {
                    return Ok(fresh);
                }
                Self::load(path, File::open(path).map_err(failed)?)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// The peer id.
    pub fn peer_id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// The public key.
    pub fn public_key(&self) -> PeerKey {
        self.key.public().into()
    }

    /// Signs a message; `None` when the key cannot, which an Ed25519 key never says. The message must begin with what
    /// it is for: the same key proves this node to its peers.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.sign(message).ok()
    }

    pub(super) fn keypair(&self) -> &Keypair {
        &self.key
    }

    /// From a key pair of any kind: peers have RSA keys, so tests need them.
    #[cfg(test)]
    pub(super) fn from_keypair(key: Keypair) -> Self {
        Self { key }
    }

    fn load(path: &Path, file: File) -> Result<Self, SwarmError> {
        let failed = |source| SwarmError::KeyFile { path: path.into(), source };
        let malformed = |reason: &str| SwarmError::KeyMalformed { path: path.into(), reason: reason.into() };
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(malformed("it is no plain file"));
        }
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SwarmError::KeyExposed { path: path.into(), mode });
        }
        let us = rustix::process::geteuid().as_raw();
        if about.uid() != us && about.uid() != 0 {
            return Err(malformed("it belongs to another user"));
        }
        let mut bytes = Vec::new();
        file.take(KEY_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.is_empty() {
            return Err(malformed("it is empty"));
        }
        if bytes.len() as u64 > KEY_BYTES {
            return Err(malformed("it is too long"));
        }
        let key = Keypair::from_protobuf_encoding(&bytes).map_err(|e| malformed(&e.to_string()))?;
        if key.key_type() != KeyType::Ed25519 {
            return Err(malformed("the key is of another kind"));
        }
        Ok(Self { key })
    }

    /// Writes the file if there is none. `false`: somebody else was first.
    fn save(&self, path: &Path) -> io::Result<bool> {
        let bytes = self.key.to_protobuf_encoding().map_err(io::Error::other)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        name.push(format!(".new-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let half = folder.join(name);
        // Left by a process of the same number that was killed: nobody else writes this name.
        let _ = std::fs::remove_file(&half);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            match std::fs::hard_link(&half, path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                // A file system without hard links: the name is free as far as anybody knows.
                Err(_) => std::fs::rename(&half, path).map(|()| true),
                Ok(()) => Ok(true),
            }
        })();
        let _ = std::fs::remove_file(&half);
        File::open(folder)?.sync_all()?;
        written
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["key"], "nothing is left beside it");
    }

    #[test]
    fn two_that_make_it_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (a, b) = (Identity::fresh(), Identity::fresh());
        assert!(a.save(&path).unwrap());
        assert!(!b.save(&path).unwrap());
        assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), a.peer_id());
    }

    #[test]
    fn what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let good = Identity::fresh().keypair().to_protobuf_encoding().unwrap();
        let rows: &[(&[u8], u32, &str)] = &[
            (&good, 0o644, "may be read by others (mode 0644)"),
            (&good, 0o660, "may be read by others (mode 0660)"),
            (b"", 0o600, "it is empty"),
            (b"not a key", 0o600, "holds no Ed25519 key"),
            (&good[..40], 0o600, "holds no Ed25519 key"),
            (&[0; 5000], 0o600, "it is too long"),
        ];
        for (bytes, mode, error) in rows {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
            let said = Identity::load_or_create(&path).unwrap_err().to_string();
            assert!(said.contains(error), "{said:?} does not say {error:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Identity::load_or_create(&path).is_err());
    }
}
