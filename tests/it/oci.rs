//! Containers: a real registry as the origin, and its real clients.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback.

mod addressing;
mod conformance;
mod containerd;
mod crowd;
pub mod fake;
mod faults;
mod harness;
pub mod image;
mod kept_apart;
mod neighbours;
mod orders;
mod pulls;
mod recorded;
mod registry;
mod setup;
pub mod through;
mod tokens;
pub mod tools;
mod trust;
