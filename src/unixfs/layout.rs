//! From a stream of bytes to the leaves, and from the leaves to the tree.

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Algorithm, Cid, Hasher, Sha256, dag_pb_cid, raw_cid};

use super::file::{Child, file_node};

/// Children of a node: `unixfs-v1-2025` (IPIP-499).
const WIDTH: usize = 1024;

/// How a file is cut into blocks: the SHA-256 of each 1 MiB chunk, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file.
    pub size: u64,
    /// One for every [`CHUNK_BYTES`] begun; a file without bytes has one, of nothing.
    pub leaves: Vec<Sha256>,
}

/// An inner node of the tree, or its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// CID of the encoded node.
    pub cid: Cid,
    /// dag-pb.
    pub bytes: Vec<u8>,
}

impl Layout {
    /// Offset and length in bytes of leaf `n`.
    pub fn span(&self, n: usize) -> (u64, u64) {
        let offset = n as u64 * CHUNK_BYTES;
        (offset, CHUNK_BYTES.min(self.size.saturating_sub(offset)))
    }

    /// The root CID, and every dag-pb node below it, children before parents.
    ///
    /// A file of one chunk has no nodes: its leaf is the root.
    pub fn tree(&self) -> (Cid, Vec<Node>) {
        let mut nodes = Vec::new();
        // A child, and the bytes of all blocks below it, its own included.
        let mut level: Vec<(Child, u64)> = (0..self.leaves.len())
            .map(|n| {
                let content_bytes = self.span(n).1;
                (Child { cid: raw_cid(self.leaves[n]), content_bytes }, content_bytes)
            })
            .collect();
        while level.len() > 1 {
            level = level
                .chunks(WIDTH)
                .map(|children| {
                    let bytes = file_node(children.iter().copied());
                    let cid = dag_pb_cid(Sha256::of(&bytes));
                    let content_bytes = children.iter().map(|(child, _)| child.content_bytes).sum();
                    let dag_bytes = bytes.len() as u64 + children.iter().map(|(_, dag)| dag).sum::<u64>();
                    nodes.push(Node { cid, bytes });
                    (Child { cid, content_bytes }, dag_bytes)
                })
                .collect();
        }
        let root = level.first().map_or_else(|| raw_cid(Sha256::of(b"")), |(child, _)| child.cid);
        (root, nodes)
    }
}

/// Hashes leaves while bytes pass.
#[derive(Clone)]
pub struct LayoutBuilder {
    leaf: Hasher,
    in_leaf: u64,
    layout: Layout,
}

impl Default for LayoutBuilder {
    fn default() -> Self {
        Self {
            leaf: Hasher::new(Algorithm::Sha256),
            in_leaf: 0,
            layout: Layout { size: 0, leaves: Vec::new() },
        }
    }
}

impl LayoutBuilder {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.layout.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = usize::try_from(CHUNK_BYTES - self.in_leaf).expect("a chunk fits in memory");
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.leaf.update(now);
            self.in_leaf += now.len() as u64;
            if self.in_leaf == CHUNK_BYTES {
                self.cut();
            }
            bytes = later;
        }
    }

    /// Takes a chunk whose SHA-256 is known already, where one begins: all of a chunk, or the end of the file.
    pub fn push(&mut self, length: u64, leaf: Sha256) {
        debug_assert!(self.in_leaf == 0 && length <= CHUNK_BYTES, "chunks are pushed whole");
        self.layout.size += length;
        self.layout.leaves.push(leaf);
    }

    /// The leaves that are whole so far.
    pub fn leaves(&self) -> &[Sha256] {
        &self.layout.leaves
    }

    /// The layout of all bytes taken.
    pub fn finish(mut self) -> Layout {
        if self.in_leaf > 0 || self.layout.leaves.is_empty() {
            self.cut();
        }
        self.layout
    }

    fn cut(&mut self) {
        let leaf = std::mem::replace(&mut self.leaf, Hasher::new(Algorithm::Sha256));
        self.layout.leaves.push(leaf.finish().sha256().expect("a sha256 hasher"));
        self.in_leaf = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use chacha20::cipher::{KeyIvInit, StreamCipher};

    fn root(bytes: &[u8], step: usize) -> String {
        let mut builder = LayoutBuilder::default();
        bytes.chunks(step.max(1)).for_each(|c| builder.update(c));
        builder.finish().tree().0.to_string()
    }

    /// The published stream of the `unixfs-v1-2025` vectors: ChaCha20, key sha256("chunk-v1-seed"), nonce zero.
    pub(in crate::unixfs) fn keystream(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let key = Sha256::of(b"chunk-v1-seed").0;
        chacha20::ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(&mut bytes);
        bytes
    }

    #[test]
    fn published_vectors() {
        // IPIP-499, test vectors of profile unixfs-v1-2025.
        let long = keystream(1_048_577);
        let cases: [(&[u8], &str); 3] = [
            (b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
            (&long[..1_048_576], "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
            (&long, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
        ];
        for (bytes, cid) in cases {
            for step in [7919, 65536, usize::MAX] {
                assert_eq!(root(bytes, step), cid, "{} bytes in steps of {step}", bytes.len());
            }
        }
    }

    #[test]
    fn a_small_files_sha256_is_its_cid() {
        for bytes in [&b""[..], b"x", &[7; 1 << 20]] {
            assert_eq!(root(bytes, 4096), raw_cid(Sha256::of(bytes)).to_string());
        }
    }

    #[test]
    fn more_leaves_than_a_node_is_wide() {
        let layout = Layout { size: 1025 * CHUNK_BYTES, leaves: vec![Sha256([1; 32]); 1025] };
        let (root, nodes) = layout.tree();
        assert_eq!(nodes.len(), 3, "two nodes of leaves and the root");
        assert_eq!(nodes[2].cid, root);
        assert!(nodes.iter().all(|n| dag_pb_cid(Sha256::of(&n.bytes)) == n.cid));
    }
}
