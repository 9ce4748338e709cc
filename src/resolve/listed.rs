//! What is known of stored files: for whoever tells others of them. Asks nobody.

use crate::base::Access;
use crate::eco::pypi::{Project, ProjectName};
use crate::store::StoreError;

use super::{PageKey, Resolve};

impl Resolve {
    /// The project's page as it is stored, however old, with who may know of it; `None` when there is none, or when the
    /// index that gave it is not configured any more. Blocks.
    pub fn listing(&self, name: &ProjectName) -> Result<Option<(Project, Access)>, StoreError> {
        let key = PageKey::Project(name.clone());
        let Some(page) = self.inner.store.page(&key.stored())?.filter(|page| page.head.found) else {
            return Ok(None);
        };
        if !self.inner.is_configured(&key, &page.head) {
            return Ok(None);
        }
        // Another version's form is as good as absent.
        let Ok(project) = Project::from_stored(&page.body) else { return Ok(None) };
        let index = self.inner.index(&page.head.upstream);
        let apart = page.head.private && !index.is_some_and(|index| index.peers);
        let access = if apart { Access::Private } else { Access::Public };
        Ok(Some((project, access)))
    }

    /// Who may know of what an index of this name gave; `None` when none is called so.
    pub fn access_of(&self, upstream: &str) -> Option<Access> {
        self.inner.index(upstream).map(|index| index.access())
    }
}
