//! dpm, the distributed package manager.
//!
//! `ARCHITECTURE.md` draws the house that these rooms make up, and says which may import which.

pub mod base;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod eco;
pub mod exchange;
pub mod fetch;
pub mod front;
pub mod lan;
pub mod members;
#[cfg(feature = "rooms")]
pub mod mirror;
pub mod peers;
pub mod resolve;
#[cfg(feature = "rooms")]
pub mod room;
pub mod rt;
pub mod store;
pub mod swarm;
pub mod unixfs;
pub mod upstream;
pub mod wire;
