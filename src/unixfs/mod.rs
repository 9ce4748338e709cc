//! UnixFS: a file as a DAG of blocks, so that every artifact has its CIDs.
//!
//! The one layout made here is `unixfs-v1-2025` (IPIP-499): CIDv1, SHA-256, 1 MiB chunks, raw leaves, a balanced
//! tree of width 1024. Pure: bytes in, CIDs and blocks out.

mod dag_pb;
mod layout;

pub use layout::{Layout, LayoutBuilder, Node};
