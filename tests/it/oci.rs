//! Containers: a real registry as the origin, and its real clients.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback.

mod conformance;
mod fake;
mod harness;
mod image;
mod recorded;
mod registry;
mod tokens;
mod tools;
