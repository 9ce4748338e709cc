//! Containers: a real registry as the origin, and its real clients.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback.

mod addressing;
mod conformance;
mod crowd;
mod fake;
mod faults;
mod harness;
mod image;
mod kept_apart;
mod orders;
mod pulls;
mod recorded;
mod registry;
mod setup;
mod through;
mod tokens;
mod tools;
mod trust;
