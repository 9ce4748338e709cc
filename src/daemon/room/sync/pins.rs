//! What a scope names exactly: versions of projects, and images by tag or digest.

use futures_lite::future::block_on;

use super::queue::{Item, What};
use super::{Failure, LeftOut, Sync, hash};
use crate::base::PackageUrl;
use crate::daemon::prefetch::{self, Prefetch};
use crate::eco::oci::{Platforms, image_of};
use crate::eco::pypi::{self, FileWant, Part, Project, Purl};
use crate::members::RoomView;
use crate::resolve::ResolveError;

/// Projects whose pages are asked for at once.
const PAGES_AT_ONCE: usize = 8;

impl Sync<'_> {
    /// Fetches what the scope names exactly and nobody had, from its upstream.
    pub(super) fn of_upstreams(
        &mut self,
        view: &RoomView,
        platforms: &Platforms,
        left_out: &mut LeftOut,
    ) -> Result<(), Failure> {
        let (mut versions, mut images) = (Vec::new(), Vec::new());
        for text in view.scope.iter().filter(|text| !text.contains('*')) {
            let Ok(purl) = PackageUrl::parse(text) else { continue };
            match purl.kind() {
                "pypi" => {
                    versions.extend(Purl::parse(text).ok().filter(|p| p.version.is_some()).map(|p| (purl, p)))
                }
                "oci" => images.extend(image_of(&purl).map(|image| (purl, image))),
                other => *left_out.entry(other.to_owned()).or_default() += 1,
            }
        }
        for some in versions.chunks(PAGES_AT_ONCE) {
            let mut items = Vec::new();
            for ((purl, version), project) in some.iter().zip(self.projects(some)) {
                match project {
                    Ok(project) => self.plan(purl, version, &project, platforms, &mut items)?,
                    Err(e) => self.without_page(purl, &e)?,
                }
            }
            self.within_budget()?;
            self.fetch(items)?;
        }
        for (purl, image) in images {
            self.image(&purl, &image, platforms);
        }
        Ok(())
    }

    /// The pages of these, all asked for at once.
    fn projects(&self, some: &[(PackageUrl, Purl)]) -> Vec<Result<std::sync::Arc<Project>, ResolveError>> {
        let resolve = &self.rooms.resolve;
        let asking = some.iter().map(|(_, purl)| Box::pin(resolve.project(&purl.name)));
        block_on(together(asking.collect()))
    }

    /// The files of a version that are not here.
    fn plan(
        &mut self,
        purl: &PackageUrl,
        version: &Purl,
        project: &Project,
        platforms: &Platforms,
        items: &mut Vec<Item>,
    ) -> Result<(), Failure> {
        let stated = version.version.as_deref().unwrap_or_default();
        let mut of_version =
            project.files.iter().filter(|f| pypi::is_of(&f.filename, &version.name, stated)).peekable();
        if of_version.peek().is_none() {
            self.missing.add(purl.as_str(), None, "its index lists no file of this version");
        }
        for file in of_version {
            let wanted = match platforms {
                Platforms::All => true,
                Platforms::These(these) => these.iter().any(|p| pypi::is_for(&file.filename, p)),
            };
            let digest = file.best_digest();
            let here = match &digest {
                Some(digest) => self.rooms.store.describe(digest)?,
                None => None,
            };
            if let Some(here) = here {
                // What members have was counted with theirs.
                if self.rooms.members.holders(&here.sha256).is_empty() {
                    self.sums.here.add(here.size);
                }
                continue;
            }
            if !wanted || self.missing.files.contains(&hash(file.filename.as_str())) {
                continue;
            }
            self.sums.planned.add(file.size.unwrap_or_default());
            let filename = file.filename.clone();
            let want = FileWant {
                project: version.name.clone(),
                digest,
                filename: filename.clone(),
                part: Part::Whole,
            };
            items.push(Item {
                package: purl.to_string(),
                file: filename,
                size: file.size,
                what: What::File(want),
            });
        }
        Ok(())
    }

    /// Without its page it is not known which files there are: what members list has to do.
    fn without_page(&mut self, purl: &PackageUrl, why: &ResolveError) -> Result<(), Failure> {
        let known = self.rooms.members.package(purl)?;
        let mut of_version = known.entries.iter().filter(|entry| entry.purl == *purl).peekable();
        // Those that are not here were named above.
        if of_version.peek().is_none() {
            self.missing.add(purl.as_str(), None, &why.to_string());
        }
        Ok(())
    }

    fn image(&mut self, purl: &PackageUrl, image: &str, platforms: &Platforms) {
        let order =
            Prefetch { what: vec![image.to_owned()], platforms: platforms.clone(), signatures: false };
        match prefetch::image(self.rooms, image, &order, self.progress) {
            Ok(row) => {
                let number = |key: &str, part: &str| row[key][part].as_u64().unwrap_or_default();
                for (sum, key) in [
                    (&mut self.sums.upstream, "fetched"),
                    (&mut self.sums.peers, "from_peers"),
                    (&mut self.sums.here, "already_here"),
                ] {
                    sum.files += number(key, "artifacts");
                    sum.bytes += number(key, "bytes");
                }
            }
            Err(e) => self.missing.add(purl.as_str(), Some(image), &e.to_string()),
        }
    }
}

/// Waits for all of these, in their order.
async fn together<T>(mut all: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut outcomes: Vec<Option<T>> = all.iter().map(|_| None).collect();
    futures_lite::future::poll_fn(|cx| {
        for (asking, outcome) in all.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let std::task::Poll::Ready(ended) = asking.as_mut().poll(cx)
            {
                *outcome = Some(ended);
            }
        }
        match outcomes.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
