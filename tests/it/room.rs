//! Matrix rooms with a real homeserver, Synapse, behind a door that counts and can answer wrongly.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback.

mod commands;
mod door;
mod events;
mod faults;
mod federation;
mod limits;
mod node;
mod sessions;
mod synapse;
