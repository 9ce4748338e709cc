//! UnixFS: a file as a DAG of blocks, so that every artifact has its CIDs; and CAR files, which carry blocks.
//!
//! The one layout made here is `unixfs-v1-2025` (IPIP-499): CIDv1, SHA-256, 1 MiB chunks, raw leaves, a balanced
//! tree of width 1024. Other layouts of a file are read. Pure: bytes in, CIDs and blocks out, and back.

pub mod car;
mod dag_pb;
mod file;
mod layout;

pub use dag_pb::{Link, Node as DagPbNode};
pub use file::{Child, Content, MOST_DEPTH, children, content};
pub use layout::{Layout, LayoutBuilder, Node};

use crate::base::CidError;
use crate::base::protobuf::ProtobufError;

/// Why a block is no part of a file that we can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnixfsError {
    /// Larger than any block.
    #[error("a block of {0} bytes")]
    TooLong(usize),
    /// A multicodec other than raw and dag-pb.
    #[error("a block with the codec {0:#x}, neither raw nor dag-pb")]
    Codec(u64),
    /// No protobuf.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// Not what dag-pb allows.
    #[error("not dag-pb: {0}")]
    DagPb(&'static str),
    /// A link's CID is none.
    #[error("a link: {0}")]
    Cid(#[from] CidError),
    /// Something else than a file.
    #[error("not a file: {0}")]
    NotAFile(&'static str),
    /// Its sizes contradict each other.
    #[error("a file's node needs {0}")]
    Sizes(&'static str),
}
