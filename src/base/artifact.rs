//! What `resolve` hands to `fetch`: bytes that can be had, and what must be true of them.

use url::Url;

use super::Digest;

/// One file of an ecosystem: where it is, and the digest that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Name of the configured upstream it belongs to.
    pub upstream: String,
    /// Where that upstream has it.
    pub url: Url,
    /// The strongest digest that the index states, if any.
    pub digest: Option<Digest>,
    /// Size in bytes, if the index states it.
    pub size: Option<u64>,
    /// The file's own name, for messages and media types.
    pub filename: String,
    /// Who may have it.
    pub access: Access,
    /// The most that is taken for it, in bytes, where its size is not known or is a lie.
    pub limit_bytes: u64,
}

/// In the place of an upstream's name: nobody is known to have it but members of a room. No upstream can be called so.
pub const ROOM: &str = "room:";

impl Artifact {
    /// Whether there is no upstream to ask for it.
    pub fn is_rooms(&self) -> bool {
        self.upstream == ROOM
    }

    /// Its address as it may be kept and shown: without userinfo, query and fragment.
    pub fn plain_url(&self) -> String {
        let mut url = self.url.clone();
        // Fails for addresses that cannot have them, which is as good.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }
}

/// Who may have an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// From an upstream that anybody can read.
    Public,
    /// From an upstream that asked for credentials or that the operator called private: never shown to peers.
    Private,
}
