//! What is kept in memory of images, within bounds.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::{Described, Fact};
use crate::rt::UnixMillis;

/// Facts kept: some 700 bytes each by estimate, lists aside.
const FACTS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Lists that are larger are read from the store each time, in bytes.
const LIST_BYTES: usize = 16 << 10;

/// Members of repositories kept: some 300 bytes each by estimate. An image has some ten.
const MEMBERS: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// Failures remembered.
const FAILURES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Everything kept, behind one lock.
pub(super) struct Memory {
    facts: LruCache<String, Arc<Fact>>,
    members: LruCache<String, Described>,
    failures: LruCache<String, UnixMillis>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            facts: LruCache::new(FACTS),
            members: LruCache::new(MEMBERS),
            failures: LruCache::new(FAILURES),
        }
    }
}

impl Memory {
    pub(super) fn fact(&mut self, key: &str) -> Option<Arc<Fact>> {
        self.facts.get(key).cloned()
    }

    pub(super) fn learn(&mut self, key: &str, fact: Arc<Fact>) {
        self.failures.pop(key);
        match fact.body.len() > LIST_BYTES {
            true => drop(self.facts.pop(key)),
            false => drop(self.facts.put(key.to_owned(), fact)),
        }
    }

    pub(super) fn fail(&mut self, key: &str, at: UnixMillis) {
        self.failures.put(key.to_owned(), at);
    }

    pub(super) fn failed_at(&self, key: &str) -> Option<UnixMillis> {
        self.failures.peek(key).copied()
    }

    pub(super) fn member(&mut self, key: &str) -> Option<Described> {
        self.members.get(key).cloned()
    }

    pub(super) fn note(&mut self, key: String, described: Described) {
        self.members.put(key, described);
    }

    /// Notes what is not known better yet.
    pub(super) fn note_new(&mut self, key: String, described: Described) {
        self.members.get_or_insert(key, || described);
    }

    pub(super) fn forget(&mut self, prefix: &str) {
        fn without<V>(from: &mut LruCache<String, V>, prefix: &str) {
            let gone: Vec<_> =
                from.iter().map(|(key, _)| key).filter(|k| k.starts_with(prefix)).cloned().collect();
            gone.iter().for_each(|key| drop(from.pop(key)));
        }
        without(&mut self.facts, prefix);
        without(&mut self.members, prefix);
        without(&mut self.failures, prefix);
    }
}
