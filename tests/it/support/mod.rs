//! What tests stand on: whole nodes, a client, a small upstream.

mod client;
mod node;
mod random;
pub mod upstream;

pub use client::{Answer, get, request};
pub use node::Node;
pub use random::{Random, bytes};
pub use upstream::Upstream;
