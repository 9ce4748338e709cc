//! Looks entries up.

use bytes::Bytes;

use crate::base::{Cid, PackageUrl, dag_cbor_cid};

use super::node::{Child, Node, entries_of};
use super::path::{PACKAGE_BYTES, Path, Place};
use super::walk::subtree;
use super::{Budget, CatalogueError, Entry, Root, load};

/// The entry of one file of a package (a URL with version, or of an image without); `None` when it has none.
///
/// Reads one block a level: six or so of a million entries.
pub fn find(
    root: &Root,
    purl: &PackageUrl,
    file: &str,
    source: &impl Fn(&Cid) -> Option<Bytes>,
) -> Result<Option<Entry>, CatalogueError> {
    let path = Path::of(purl, file);
    let (mut child, mut place) = (Child { hash: root.hash, entries: root.entries }, Place::ROOT);
    loop {
        let block = load(child.hash, source)?;
        let cid = dag_cbor_cid(child.hash);
        match Node::read(child, place.depth == 0, &block)? {
            Node::Leaf(entries) => {
                let key = (purl.as_str(), file);
                let Ok(number) = entries.binary_search_by(|entry| entry.key().cmp(&key)) else {
                    return Ok(None);
                };
                let entry = entries[number].entry();
                return entry.map(Some).map_err(|source| CatalogueError::Entry { cid, number, source });
            }
            Node::Inner(children) => {
                let step = path.step(place.depth);
                place = place.below(step).ok_or(CatalogueError::TooDeep(cid))?;
                let Some(next) = children[usize::from(step)] else { return Ok(None) };
                child = next;
            }
        }
    }
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
