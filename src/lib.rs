//! dpm, the distributed package manager.
//!
//! `ARCHITECTURE.md` draws the house that these rooms make up, and says which may import which.

pub mod base;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod eco;
pub mod fetch;
pub mod front;
pub mod resolve;
pub mod rt;
pub mod store;
pub mod unixfs;
pub mod upstream;
