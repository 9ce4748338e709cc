//! Pages that are carried from one node to another.
//!
//! Names are trusted from the upstream that owns them and from nobody else; a page that was carried here is somebody's
//! word. It is taken over only when an operator says so, never in the place of a fresher one or of another index's, and
//! it counts as stale until an upstream has sent it anew: without validators, so that no upstream can be made to confirm
//! what it has not seen.

use std::sync::Arc;

use crate::base::Access;
use crate::eco::pypi::{Project, ProjectName};
use crate::store::{Page, PageHead, StoreError};

use super::{Answer, LOCK, PageKey, Resolve, ResolveError};

/// A page of a project as it is stored.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Whose.
    pub name: ProjectName,
    /// Name of the index that said it.
    pub upstream: String,
    /// Where that has it.
    pub url: String,
    /// When it last confirmed it: milliseconds since the epoch.
    pub checked_at: u64,
    /// Who may see it.
    pub access: Access,
    /// In its stored form.
    pub body: Vec<u8>,
}

/// What became of a page that was carried here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is known now, and stale.
    Taken,
    /// The same is known, or one that is as fresh.
    Known,
    /// No index here is the one that said it.
    NoIndex,
    /// The name belongs to another index here.
    Owned,
    /// It is no page of this project.
    NotThePage,
}

impl Resolve {
    /// The projects whose pages are stored, `most` of them at most. Blocks.
    pub fn stored_projects(&self, most: usize) -> Result<Vec<ProjectName>, StoreError> {
        let prefix = PageKey::Root.stored();
        let keys = self.inner.store.page_keys(&prefix, most)?;
        Ok(keys.iter().filter_map(|key| ProjectName::normalise(key.strip_prefix(&prefix)?).ok()).collect())
    }

    /// A project's page as it is stored, if it is, and if it is from an index as configured. Blocks.
    pub fn stored_page(&self, name: &ProjectName) -> Result<Option<Carried>, StoreError> {
        let key = PageKey::Project(name.clone());
        let Some(Page { head, body }) = self.inner.store.page(&key.stored())? else { return Ok(None) };
        if !head.found || !self.inner.is_configured(&key, &head) {
            return Ok(None);
        }
        let index = self.inner.index(&head.upstream);
        let private = head.private || index.is_some_and(|i| i.private || i.site.credentials.is_some());
        let access = if private { Access::Private } else { Access::Public };
        let PageHead { upstream, url, checked_at, .. } = head;
        Ok(Some(Carried { name: name.clone(), upstream, url, checked_at, access, body }))
    }

    /// Takes over a page that was carried here. Blocks.
    pub fn adopt(&self, page: Carried) -> Result<Adopted, StoreError> {
        let inner = &self.inner;
        if !Project::from_stored(&page.body).is_ok_and(|project| project.name == page.name) {
            return Ok(Adopted::NotThePage);
        }
        let key = PageKey::Project(page.name);
        let known = inner.store.page_head(&key.stored())?.and_then(|head| inner.as_configured(&key, head));
        // The same index may go by another name here.
        let index = inner.indexes.iter().find(|index| index.page_url(&key).as_str() == page.url);
        if index.is_none() && !inner.indexes.is_empty() {
            return Ok(Adopted::NoIndex);
        }
        let now = inner.clock.now();
        // Far enough back that an upstream that can be asked is asked before it is served.
        let latest = now.0.saturating_sub(super::refresh::millis(inner.freshness.stale_while_revalidate) + 1);
        let head = PageHead {
            upstream: index.map_or(page.upstream, |index| index.site.name.clone()),
            url: page.url,
            checked_at: page.checked_at.min(latest),
            fresh_for: 0,
            found: true,
            revision: known.as_ref().map_or(0, |head| head.revision + 1).max(now.0),
            private: page.access == Access::Private || index.is_some_and(|index| index.private),
            etag: None,
            last_modified: None,
        };
        let owned = known
            .as_ref()
            .is_some_and(|head_known| head_known.private && head_known.upstream != head.upstream);
        if owned || !inner.is_configured(&key, &head) {
            return Ok(Adopted::Owned);
        }
        if let Some(known) = known {
            let same = || {
                Ok::<_, StoreError>(
                    inner.store.page(&key.stored())?.is_some_and(|stored| stored.body == page.body),
                )
            };
            if known.checked_at >= head.checked_at || known.found && same()? {
                return Ok(Adopted::Known);
            }
        }
        inner.store.set_page(&key.stored(), &Page { head, body: page.body })?;
        inner.memory.lock().expect(LOCK).forget(&key);
        Ok(Adopted::Taken)
    }

    /// What a project's page says now, asking the upstream as far as freshness demands, and rooms where it fails.
    pub async fn project(&self, name: &ProjectName) -> Result<Arc<Project>, ResolveError> {
        let key = PageKey::Project(name.clone());
        match self.inner.answer(&key, false).await? {
            Answer::Room(page) => Ok(page.project),
            Answer::Upstream(head, _) if head.found => self.inner.project(&key, &head).await,
            Answer::Upstream(..) => Err(ResolveError::Unknown(key)),
        }
    }
}
