//! What tests stand on: whole nodes, a client, a small upstream.

mod client;
mod index;
mod node;
pub mod process;
mod random;
pub mod upstream;

pub use client::{Answer, get, request};
pub use index::Project;
pub use node::Node;
pub use process::Process;
pub use random::{Random, bytes};
pub use upstream::Upstream;
