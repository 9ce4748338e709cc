//! Matrix rooms with a real homeserver, Synapse, behind a door that counts and can answer wrongly.
//!
//! Needs `tests/counterparts.sh` run before. Nothing here leaves loopback and the networks that tests make.

mod announce;
mod club;
mod commands;
mod door;
mod events;
mod faults;
mod federation;
mod foreign;
mod hostile;
mod limits;
mod mirror;
mod node;
mod scope;
mod sessions;
mod several;
mod synapse;
pub mod tunnel;
mod whole;
mod without;
mod world;
