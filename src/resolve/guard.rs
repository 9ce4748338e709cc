//! The name guard: which indexes may be asked for a name at all.
//!
//! A name that a private index owns is never asked of another one: somebody could register it there
//! ("dependency confusion"), and the question alone tells it to strangers.

use crate::base::{Access, Artifact, limits};
use crate::eco::pypi::{self, NamePattern, ProjectName};
use crate::store::PageHead;
use crate::upstream::Site;

use super::{Inner, PageKey};

/// A configured index of an ecosystem.
#[derive(Clone, Debug)]
pub struct Index {
    /// Where it is and who may be asked on its behalf.
    pub site: Site,
    /// Whether its names are its own from the first time it knows them.
    pub private: bool,
    /// Whether its files are given to peers all the same.
    pub peers: bool,
    /// Names that are its own in any case.
    pub owns: Vec<NamePattern>,
}

impl Index {
    fn owns(&self, name: &ProjectName) -> bool {
        self.owns.iter().any(|p| p.matches(name))
    }

    /// Whether what it has is not for everybody.
    fn is_apart(&self) -> bool {
        self.private || self.site.credentials.is_some()
    }

    /// Who may have what it gives.
    pub(super) fn access(&self) -> Access {
        if self.is_apart() && !self.peers { Access::Private } else { Access::Public }
    }

    /// A file that a page of this index lists.
    pub(super) fn artifact(&self, file: &pypi::File) -> Artifact {
        listed(&self.site.name, self.access(), file)
    }

    /// The address of a page.
    pub(super) fn page_url(&self, key: &PageKey) -> url::Url {
        match key {
            PageKey::Root => self.site.url.clone(),
            PageKey::Project(name) => {
                self.site.url.join(&format!("{name}/")).unwrap_or_else(|_| self.site.url.clone())
            }
        }
    }
}

/// A file that a page of this upstream lists.
pub(super) fn listed(upstream: &str, access: Access, file: &pypi::File) -> Artifact {
    Artifact {
        upstream: upstream.to_owned(),
        url: file.url.clone(),
        digest: file.best_digest(),
        size: file.size,
        filename: file.filename.clone(),
        access,
        limit_bytes: limits::ARTIFACT_BYTES,
    }
}

impl Inner {
    /// The indexes that may be asked for a page, in order, given what is known of it.
    pub(super) fn candidates(&self, key: &PageKey, known: Option<&PageHead>) -> Vec<&Index> {
        let PageKey::Project(name) = key else { return self.indexes.iter().collect() };
        let owners: Vec<_> = self.indexes.iter().filter(|i| i.owns(name)).collect();
        if !owners.is_empty() {
            return owners;
        }
        let owner = known.filter(|head| head.private).and_then(|head| self.index(&head.upstream));
        match owner {
            Some(owner) => vec![owner],
            None => self.indexes.iter().collect(),
        }
    }

    /// Whether rooms may say anything of a name: not if it is a private index's, or could be one's.
    pub(super) fn may_be_told(&self, key: &PageKey, known: Option<&PageHead>) -> bool {
        match known.filter(|head| head.found || head.private) {
            Some(head) => !head.private && !self.index(&head.upstream).is_none_or(Index::is_apart),
            None => !self.candidates(key, known).into_iter().any(Index::is_apart),
        }
    }

    /// What is known of a page, as far as the configuration still bears it out.
    ///
    /// Of a private index that is configured still, but elsewhere, only this is left: the name is its own.
    pub(super) fn as_configured(&self, key: &PageKey, head: PageHead) -> Option<PageHead> {
        if self.is_configured(key, &head) {
            return Some(head);
        }
        let owner = self.index(&head.upstream).filter(|index| head.private && index.private)?;
        Some(PageHead {
            upstream: head.upstream,
            url: owner.page_url(key).to_string(),
            private: true,
            revision: head.revision,
            ..PageHead::default()
        })
    }

    /// Whether what is known of a page is from an index as it is configured now, and one that may be asked for it.
    ///
    /// Without any index nobody is asked, and everything known counts: an operator looks at an idle store whose node
    /// had its upstreams from the command line.
    pub(super) fn is_configured(&self, key: &PageKey, head: &PageHead) -> bool {
        if self.indexes.is_empty() {
            return true;
        }
        if head.upstream.is_empty() {
            // "No index knows it", said by all of them together.
            return head.url == self.all_urls(key);
        }
        self.candidates(key, Some(head))
            .iter()
            .any(|i| i.site.name == head.upstream && i.page_url(key).as_str() == head.url)
    }

    /// Stands for the whole list of indexes, so that a negative answer ends with the list that gave it.
    pub(super) fn all_urls(&self, key: &PageKey) -> String {
        self.indexes.iter().map(|i| i.page_url(key).to_string()).collect::<Vec<_>>().join(" ")
    }
}
