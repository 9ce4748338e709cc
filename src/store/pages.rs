//! Index pages: what an upstream said of a name, with the validators that belong to just these bytes.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use minicbor::{Decode, Encode};

use super::{Store, StoreError, records};

/// What is known of a page besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PageHead {
    /// Name of the upstream that answered.
    #[n(0)]
    pub upstream: String,
    /// The upstream's entity tag, as sent.
    #[n(1)]
    pub etag: Option<String>,
    /// The upstream's `Last-Modified`, as sent.
    #[n(2)]
    pub last_modified: Option<String>,
    /// When the upstream last confirmed it: milliseconds since the epoch.
    #[n(3)]
    pub checked_at: u64,
    /// How long it is fresh from then on, in milliseconds.
    #[n(4)]
    pub fresh_for: u64,
    /// Whether the upstream knows the name: a negative answer has no body.
    #[n(5)]
    pub found: bool,
    /// Counts the bodies this page has had, so that what was rendered from one is not taken for another's.
    #[n(6)]
    pub revision: u64,
    /// Whether the upstream that answered is a private one: the name is its own from then on.
    #[n(7)]
    pub private: bool,
    /// The page's own address at the upstream: a page from elsewhere is not this one's predecessor.
    #[n(8)]
    pub url: String,
}

/// A page with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What is known of it.
    pub head: PageHead,
    /// In the ecosystem's stored form.
    pub body: Vec<u8>,
}

/// Compression of bodies on disk: the fastest, for it is done while clients install. Others were not measured.
const LEVEL: Compression = Compression::new(1);

impl Store {
    /// What is known of a page.
    pub fn page_head(&self, key: &str) -> Result<Option<PageHead>, StoreError> {
        match self.inner.heads.get(key)? {
            Some(bytes) => records::decode(&bytes).map(Some),
            None => Ok(None),
        }
    }

    /// A page. One whose body is damaged is as good as absent.
    pub fn page(&self, key: &str) -> Result<Option<Page>, StoreError> {
        let snapshot = self.inner.db.snapshot();
        use fjall::Readable;
        let Some(head) = snapshot.get(&self.inner.heads, key)? else { return Ok(None) };
        let head: PageHead = records::decode(&head)?;
        if !head.found {
            return Ok(Some(Page { head, body: Vec::new() }));
        }
        let Some(packed) = snapshot.get(&self.inner.bodies, key)? else { return Ok(None) };
        let mut body = Vec::new();
        match ZlibDecoder::new(&packed[..]).read_to_end(&mut body) {
            Ok(_) => Ok(Some(Page { head, body })),
            Err(e) => {
                log::warn!("the stored page {key} is damaged and will be fetched again: {e}");
                Ok(None)
            }
        }
    }

    /// The keys of pages that begin with `prefix`, `most` of them at most.
    pub fn page_keys(&self, prefix: &str, most: usize) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        for guard in self.inner.heads.prefix(prefix).take(most) {
            keys.push(String::from_utf8_lossy(&guard.key()?).into_owned());
        }
        Ok(keys)
    }

    /// Replaces a page and its validators in one batch.
    ///
    /// It survives the end of the process at any instant; a power cut may take the last ones, which costs a fetch.
    pub fn set_page(&self, key: &str, page: &Page) -> Result<(), StoreError> {
        self.writable()?;
        let mut batch = self.inner.db.batch();
        batch.insert(&self.inner.heads, key, records::encode(&page.head));
        if page.head.found {
            let mut packed = ZlibEncoder::new(Vec::with_capacity(page.body.len() / 4), LEVEL);
            packed.write_all(&page.body).and_then(|()| packed.try_finish()).expect("memory takes every byte");
            batch.insert(&self.inner.bodies, key, packed.finish().expect("memory takes every byte"));
        } else {
            batch.remove(&self.inner.bodies, key);
        }
        Ok(batch.commit()?)
    }

    /// Renews what is known of a page whose body did not change.
    pub fn set_page_head(&self, key: &str, head: &PageHead) -> Result<(), StoreError> {
        self.writable()?;
        Ok(self.inner.heads.insert(key, records::encode(head))?)
    }

    /// Forgets a page. `false` when there was none.
    pub fn forget_page(&self, key: &str) -> Result<bool, StoreError> {
        self.inner.room_for_change()?;
        let mut batch = self.inner.db.batch();
        batch.remove(&self.inner.heads, key);
        batch.remove(&self.inner.bodies, key);
        let was = self.inner.heads.contains_key(key)?;
        batch.commit()?;
        Ok(was)
    }

    /// Forgets pages that no upstream has confirmed since `before` (milliseconds since the epoch).
    pub fn forget_old_pages(&self, before: u64) -> Result<usize, StoreError> {
        self.inner.room_for_change()?;
        let mut batch = self.inner.db.batch();
        let mut count = 0;
        for guard in self.inner.heads.iter() {
            let (key, head) = guard.into_inner()?;
            // Who owns a name is never forgotten by itself.
            if records::decode::<PageHead>(&head).is_ok_and(|h| h.private || h.checked_at >= before) {
                continue;
            }
            batch.remove(&self.inner.heads, key.clone());
            batch.remove(&self.inner.bodies, key);
            count += 1;
        }
        batch.commit()?;
        Ok(count)
    }

    /// Forgets the pages that were confirmed longest ago, until the bodies left take at most `most` bytes, and
    /// negative answers that expired before `before` (milliseconds since the epoch). Who owns a name is kept.
    pub fn trim_pages(&self, most: u64, before: u64) -> Result<usize, StoreError> {
        self.inner.room_for_change()?;
        let mut sizes = std::collections::HashMap::new();
        for guard in self.inner.bodies.iter() {
            let (key, body) = guard.into_inner()?;
            sizes.insert(key, body.len() as u64);
        }
        let mut left: u64 = sizes.values().sum();
        let mut pages = Vec::new();
        for guard in self.inner.heads.iter() {
            let (key, head) = guard.into_inner()?;
            // One that cannot be read goes first.
            let head = records::decode::<PageHead>(&head).unwrap_or_default();
            if !head.private {
                pages.push((head.checked_at, head.found, key));
            }
        }
        pages.sort_unstable_by_key(|(checked_at, ..)| *checked_at);
        let mut batch = self.inner.db.batch();
        let mut count = 0;
        for (checked_at, found, key) in pages {
            let expired = !found && checked_at < before;
            if !expired && (left <= most || !found) {
                continue;
            }
            left -= sizes.get(&key).copied().unwrap_or(0).min(left);
            batch.remove(&self.inner.heads, key.clone());
            batch.remove(&self.inner.bodies, key);
            count += 1;
        }
        batch.commit()?;
        Ok(count)
    }
}
