//! What is stored, by CID: blocks, files, and whole DAGs as CAR files. Asks nobody.
//!
//! Whoever comes to the door may ask here: what not everybody may have is as good as absent then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Access, Cid, DAG_CBOR, DAG_PB, IDENTITY, RAW, Sha256, dag_pb_cid, raw_cid, sha256_of_cid};
use crate::store::{Block, Store, StoreError, Stored};
use crate::unixfs::{Layout, Node, car, children, content};

use super::{Body, Fetch, FetchError, Inner};

/// Bytes that a CID names.
pub struct Piece {
    source: Source,
    /// How many.
    pub length: u64,
}

#[derive(Clone)]
enum Source {
    Memory(Bytes),
    Stored { stored: Arc<Stored>, inner: Arc<Inner>, offset: u64 },
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Somebody at the door: what anybody may have.
    Anybody,
    /// The operator: everything.
    Operator,
}

impl Reach {
    fn allows(self, access: Access) -> bool {
        self == Self::Operator || access == Access::Public
    }
}

/// The part of a DAG that is asked for (specs.ipfs.tech, "Trustless Gateway", `dag-scope` and `entity-bytes`).
///
/// Everything stored is a file, so `entity` and `all` are the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The block with the CID itself.
    Block,
    /// All of it.
    Whole,
    /// What it takes to verify bytes `from..=to` of the file; negative ones count from its end, and without `to` the
    /// range ends there.
    Bytes {
        /// The first byte.
        from: i64,
        /// The last byte.
        to: Option<i64>,
    },
}

/// Whether a block that occurs several times in a DAG is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Each time.
    Sent,
    /// Once.
    LeftOut,
}

/// A CAR file that can be sent: CARv1, depth first.
pub struct Car {
    body: Body,
    /// Its bytes.
    pub length: u64,
}

/// Why a block that is here is not the root of a CAR file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CarRefusal {
    /// The block is here, what it links to is nobody's file.
    #[error("this block is stored, but is no file's: it can be had as a block, with ?format=raw")]
    NotAFile,
    /// No byte of the range is one of the file.
    #[error("the file has {0} bytes, and the range lies beyond them")]
    Beyond(u64),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] FetchError),
}

impl Fetch {
    /// The block with this CID.
    pub async fn block(&self, cid: &Cid) -> Result<Option<Piece>, FetchError> {
        if is_empty_identity(cid) {
            return Ok(Some(Piece::memory(Bytes::new())));
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        let find =
            move || Ok(find_block(&inner.store, &cid, Reach::Anybody)?.map(|block| Piece::of(block, &inner)));
        self.on_disk(find).await
    }

    /// The file whose root this CID is: an artifact, or the part of one that one of its blocks stands for. A whole
    /// artifact is found by its SHA-256 as a raw CID too, whatever its size; a node of a catalogue stands for itself.
    pub async fn file(&self, cid: &Cid, reach: Reach) -> Result<Option<Piece>, FetchError> {
        if is_empty_identity(cid) {
            return Ok(Some(Piece::memory(Bytes::new())));
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        let find = move || {
            if matches!(cid.codec(), RAW | DAG_CBOR) {
                if let Some(block) = find_block(&inner.store, &cid, reach)? {
                    return Ok(Some(Piece::of(block, &inner)));
                }
                let Some(sha256) = sha256_of_cid(&cid) else { return Ok(None) };
                let stored = inner.store.find(&sha256.digest())?.filter(|s| reach.allows(s.access));
                stored.iter().for_each(|stored| inner.store.touch(stored.sha256));
                return Ok(stored.map(|stored| Piece::stored(stored.clone(), &inner, 0, stored.size)));
            }
            Ok(Dag::find(&inner.store, &cid, reach)?.map(|dag| {
                let (offset, length) = dag.span;
                Piece::stored(dag.stored, &inner, offset, length)
            }))
        };
        self.on_disk(find).await
    }

    /// The DAG below this CID, or a part of it, as a CAR file with this one root.
    ///
    /// What it takes in memory is a hash for each block, whatever their size.
    pub async fn car(&self, cid: &Cid, scope: Scope, repeats: Repeats) -> Result<Option<Car>, CarRefusal> {
        if is_empty_identity(cid) {
            // Its block is in its name: the section may be left out ("Dedicated Probe Paths").
            return Ok(Some(Car::new(cid, 0, std::iter::empty())));
        }
        let (inner, cid) = (self.inner.clone(), *cid);
        let disk = self.inner.disk.clone();
        disk.run(move || plan(&inner, &cid, scope, repeats)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        find: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FetchError> {
        Ok(self.inner.disk.run(find).await.map_err(Arc::new)?)
    }
}

impl Piece {
    fn memory(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, source: Source::Memory(bytes) }
    }

    fn stored(stored: Arc<Stored>, inner: &Arc<Inner>, offset: u64, length: u64) -> Self {
        Self { source: Source::Stored { stored, inner: inner.clone(), offset }, length }
    }

    fn of(block: Block, inner: &Arc<Inner>) -> Self {
        match block {
            Block::Range { stored, offset, length } => Self::stored(stored, inner, offset, length),
            Block::Node { bytes, .. } => Self::memory(bytes.into()),
            Block::Catalogue { bytes } => Self::memory(bytes),
        }
    }

    /// `length` bytes from `first`, both within it.
    pub fn body(self, first: u64, length: u64) -> Body {
        match self.source {
            Source::Memory(bytes) => {
                let first = usize::try_from(first).unwrap_or(usize::MAX).min(bytes.len());
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - first);
                Body::memory(bytes.slice(first..first + length))
            }
            Source::Stored { stored, inner, offset } => {
                let first = offset + first;
                Body::stored(stored, inner, first, Some(first + length))
            }
        }
    }
}

impl Car {
    /// With these blocks, whose sections are `sections_bytes` together.
    fn new(
        root: &Cid,
        sections_bytes: u64,
        blocks: impl Iterator<Item = (Cid, Piece)> + Send + 'static,
    ) -> Self {
        let header = Bytes::from(car::header(std::slice::from_ref(root)));
        let length = header.len() as u64 + sections_bytes;
        Self {
            body: Body::parts(Parts { next: vec![Body::memory(header)], blocks: Box::new(blocks) }, length),
            length,
        }
    }

    /// Its bytes.
    pub fn body(self) -> Body {
        self.body
    }
}

/// The bodies that a CAR file is made of, one after the other.
pub(super) struct Parts {
    /// What comes first, last.
    next: Vec<Body>,
    blocks: Box<dyn Iterator<Item = (Cid, Piece)> + Send>,
}

impl Iterator for Parts {
    type Item = Body;
    fn next(&mut self) -> Option<Body> {
        if let Some(body) = self.next.pop() {
            return Some(body);
        }
        let (cid, piece) = self.blocks.next()?;
        let section = Bytes::from(car::section(&cid, piece.length));
        let length = piece.length;
        self.next.push(piece.body(0, length));
        Some(Body::memory(section))
    }
}

fn plan(inner: &Arc<Inner>, cid: &Cid, scope: Scope, repeats: Repeats) -> Result<Option<Car>, CarRefusal> {
    let failed = |e: StoreError| FetchError::from(Arc::new(e));
    let Some(block) = find_block(&inner.store, cid, Reach::Anybody).map_err(failed)? else { return Ok(None) };
    if cid.codec() == RAW || scope == Scope::Block {
        if let (RAW, Scope::Bytes { from, to }) = (cid.codec(), scope) {
            range(from, to, block.length())?;
        }
        let bytes = section_bytes(cid, block.length());
        let only = (*cid, Piece::of(block, inner));
        return Ok(Some(Car::new(cid, bytes, std::iter::once(only))));
    }
    let Some(dag) = Dag::find(&inner.store, cid, Reach::Anybody).map_err(failed)? else {
        return Err(CarRefusal::NotAFile);
    };
    let (offset, length) = dag.span;
    let wanted = match scope {
        Scope::Bytes { from, to } => range(from, to, length)?,
        _ => 0..length,
    };
    let wanted = offset + wanted.start..offset + wanted.end;
    let mut walk = Walk { dag: &dag, wanted, repeats, seen: HashSet::new(), items: Vec::new(), bytes: 0 };
    walk.node(dag.top, offset);
    // The root goes by the name that it was asked for, which may be shorter.
    let root_bytes = dag.nodes[dag.top].0.bytes.len() as u64;
    let bytes =
        walk.bytes - section_bytes(&dag.nodes[dag.top].0.cid, root_bytes) + section_bytes(cid, root_bytes);
    let items = walk.items;
    let (dag, inner) = (Arc::new(dag), inner.clone());
    let top = *cid;
    let blocks = items.into_iter().enumerate().map(move |(n, item)| match item {
        Item::Node(node) => {
            let node = &dag.nodes[node as usize].0;
            let cid = if n == 0 { top } else { node.cid };
            (cid, Piece::memory(node.bytes.clone().into()))
        }
        Item::Leaf(leaf) => {
            let (offset, length) = dag.layout.span(leaf as usize);
            let cid = raw_cid(dag.layout.leaves[leaf as usize]);
            (cid, Piece::stored(dag.stored.clone(), &inner, offset, length))
        }
    });
    Ok(Some(Car::new(cid, bytes, blocks)))
}

/// Bytes `from..=to` of a file of `size`, as far as there are any.
fn range(from: i64, to: Option<i64>, size: u64) -> Result<std::ops::Range<u64>, CarRefusal> {
    let place = |at: i64| match u64::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => size.checked_sub(at.unsigned_abs()),
    };
    let first = place(from).unwrap_or(0);
    let end = match to {
        None => size,
        Some(to) => place(to).map_or(0, |to| to.saturating_add(1)).min(size),
    };
    if size > 0 && first >= size {
        return Err(CarRefusal::Beyond(size));
    }
    // Nothing at all is the root alone.
    Ok(first..end.max(first))
}

/// A file's DAG as it is stored, and one of its nodes.
struct Dag {
    stored: Arc<Stored>,
    layout: Layout,
    /// Each node, and the offset of its first byte in the file.
    nodes: Vec<(Node, u64)>,
    by_cid: HashMap<Cid, usize>,
    /// The node that was asked for.
    top: usize,
    /// Offset and length in the file of what is below it.
    span: (u64, u64),
}

impl Dag {
    /// The DAG that this CID of a node belongs to. Blocks.
    fn find(store: &Store, cid: &Cid, reach: Reach) -> Result<Option<Self>, StoreError> {
        if cid.codec() != DAG_PB {
            return Ok(None);
        }
        let Some(Block::Node { artifact, .. }) = find_block(store, cid, reach)? else { return Ok(None) };
        let stored = store.find(&artifact.digest())?.filter(|s| reach.allows(s.access));
        let (Some(stored), Some(leaves)) = (stored, store.leaves(&artifact)?) else { return Ok(None) };
        let layout = Layout { size: stored.size, leaves };
        let mut nodes = Vec::new();
        let mut at = 0;
        for node in layout.tree().1 {
            // Ours: it can be read.
            let below = content(&node.bytes, DAG_PB).map_or(0, |c| c.content_bytes());
            nodes.push((node, at));
            // Level by level, each of which covers the file.
            at += below;
            if at >= layout.size {
                at = 0;
            }
        }
        // Of those that are equal, any will do.
        let by_cid: HashMap<_, _> = nodes.iter().enumerate().map(|(n, (node, _))| (node.cid, n)).collect();
        let named = sha256_of_cid(cid).map(dag_pb_cid);
        let Some(&top) = named.and_then(|cid| by_cid.get(&cid)) else { return Ok(None) };
        let length = content(&nodes[top].0.bytes, DAG_PB).map_or(0, |c| c.content_bytes());
        let span = (nodes[top].1, length);
        Ok(Some(Self { stored, layout, nodes, by_cid, top, span }))
    }
}

/// What is sent of a DAG, by its place in [`Dag`]: 8 bytes each.
enum Item {
    Node(u32),
    Leaf(u32),
}

/// Goes down a DAG, depth first.
struct Walk<'a> {
    dag: &'a Dag,
    /// Of the file.
    wanted: std::ops::Range<u64>,
    repeats: Repeats,
    seen: HashSet<Sha256>,
    items: Vec<Item>,
    /// Of all sections.
    bytes: u64,
}

impl Walk<'_> {
    /// Takes a node and what is wanted below it; `at` is the offset of its first byte.
    ///
    /// A layout of ours has three levels at most: 64 GiB, 1 MiB a leaf, 1,024 children a node.
    fn node(&mut self, n: usize, mut at: u64) {
        let dag = self.dag;
        let node = &dag.nodes[n].0;
        if !self.takes(&node.cid, node.bytes.len() as u64, Item::Node(n as u32)) {
            return;
        }
        for (child, length) in children(&node.bytes).unwrap_or_default() {
            let here = at..at + length;
            at = here.end;
            if self.wanted.is_empty() || here.end <= self.wanted.start || here.start >= self.wanted.end {
                continue;
            }
            match dag.by_cid.get(&child) {
                Some(&below) => self.node(below, here.start),
                None => {
                    let leaf = (here.start / CHUNK_BYTES) as u32;
                    self.takes(&child, length, Item::Leaf(leaf));
                }
            }
        }
    }

    /// Whether the block is sent here.
    fn takes(&mut self, cid: &Cid, length: u64, item: Item) -> bool {
        if self.repeats == Repeats::LeftOut && !sha256_of_cid(cid).is_some_and(|hash| self.seen.insert(hash))
        {
            return false;
        }
        self.bytes += section_bytes(cid, length);
        self.items.push(item);
        true
    }
}

/// Bytes of a block's section, the block included.
fn section_bytes(cid: &Cid, length: u64) -> u64 {
    car::section(cid, length).len() as u64 + length
}

/// A block that may be had. Blocks.
fn find_block(store: &Store, cid: &Cid, reach: Reach) -> Result<Option<Block>, StoreError> {
    let found = store.block_that(cid, |block| reach.allows(block.access()))?;
    found.iter().filter_map(Block::artifact).for_each(|artifact| store.touch(artifact));
    Ok(found)
}

/// `bafkqaaa`, the identity CID of nothing, by which a gateway is recognised (Trustless Gateway, "Dedicated Probe
/// Paths").
fn is_empty_identity(cid: &Cid) -> bool {
    cid.codec() == RAW && cid.hash().code() == IDENTITY && cid.hash().size() == 0
}
