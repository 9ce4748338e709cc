//! Looks entries up.

use bytes::Bytes;

use crate::base::{Cid, PackageUrl, dag_cbor_cid};

use super::node::{Child, Node, Step, entries_of, seek};
use super::path::{PACKAGE_BYTES, Path, Place};
use super::walk::subtree;
use super::{Budget, CatalogueError, Entry, MOST_DEPTH, Root, load};

/// The entry of one file of a package (a URL with version, or of an image without); `None` when it has none.
///
/// Reads one block a level, five or six of a million entries, and each only up to what it looks for.
pub fn find(
    root: &Root,
    purl: &PackageUrl,
    file: &str,
    source: &impl Fn(&Cid) -> Option<Bytes>,
) -> Result<Option<Entry>, CatalogueError> {
    let path = Path::of(purl, file);
    let key = (purl.as_str(), file);
    let mut hash = root.hash;
    for depth in 0..=MOST_DEPTH {
        let block = load(hash, source)?;
        match seek(hash, path.step(depth), key, &block)? {
            Step::Down(child) => hash = child.hash,
            Step::Nothing => return Ok(None),
            Step::Found(entry, number) => {
                let cid = || dag_cbor_cid(hash);
                let entry = entry.entry_of(purl);
                return entry.map(Some).map_err(|source| CatalogueError::Entry {
                    cid: cid(),
                    number,
                    source,
                });
            }
        }
    }
    Err(CatalogueError::TooDeep(dag_cbor_cid(hash)))
}

/// All entries of a package (a URL whose version does not matter), in no order: what an index page lists.
pub fn of_package(
    root: &Root,
    package: &PackageUrl,
    source: &impl Fn(&Cid) -> Option<Bytes>,
    budget: &mut Budget,
) -> Result<Vec<Entry>, CatalogueError> {
    let package = package.package();
    let path = Path::of_package(&package);
    let (mut child, mut place) = (Child { hash: root.hash, entries: root.entries }, Place::ROOT);
    let mut found = Vec::new();
    while place.depth < 2 * PACKAGE_BYTES {
        let block = load(child.hash, source)?;
        budget.take_block(block.len())?;
        match Node::read(child, place.depth == 0, &block)? {
            Node::Leaf(raw) => {
                let entries = entries_of(child.hash, &place, &raw)?.into_iter().map(|(_, entry)| entry);
                found.extend(entries.filter(|entry| entry.purl.package() == package));
                return Ok(found);
            }
            Node::Inner(children) => {
                let step = path.step(place.depth);
                place = place.below(step).ok_or(CatalogueError::TooDeep(dag_cbor_cid(child.hash)))?;
                let Some(next) = children[usize::from(step)] else { return Ok(found) };
                child = next;
            }
        }
    }
    subtree(child, place, source, budget, &mut |_, entry| {
        if entry.purl.package() == package {
            found.push(entry);
        }
    })?;
    Ok(found)
}
