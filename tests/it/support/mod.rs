//! What tests stand on: whole nodes, clients, a small upstream, projects to publish there.

mod client;
mod index;
pub mod liar;
pub mod member;
pub mod network;
mod node;
pub mod process;
mod project;
mod random;
pub mod relay;
pub mod upstream;
mod wait;

pub use client::{Answer, Raw, attempt, get, request};
pub use index::Project as Listing;
pub use node::Node;
pub use process::Process;
pub use project::{Project, bytes, installable, wheel};
pub use random::{Random, bytes as random_bytes};
pub use upstream::{Fault, File, Framing, Ranges, Upstream};
pub use wait::{LIMIT, Latch, until};

/// PEP 691.
pub const JSON: &str = "application/vnd.pypi.simple.v1+json";
