//! What tests stand on: whole nodes, a client, a small upstream.

mod client;
mod node;
pub mod upstream;

pub use client::{Answer, get, request};
pub use node::Node;
pub use upstream::Upstream;
