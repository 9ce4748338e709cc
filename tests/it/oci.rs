//! Containers: a real registry as the origin, and its real clients.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback.

mod conformance;
mod fake;
mod harness;
mod image;
mod orders;
mod recorded;
mod registry;
mod setup;
mod tokens;
mod tools;
