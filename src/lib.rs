//! dpm, the distributed package manager.
//!
//! `ARCHITECTURE.md` draws the house: the rooms below are listed from the ground up, and imports only go down.

pub mod base;
pub mod rt;
pub mod unixfs;
pub mod store;
pub mod fetch;
pub mod upstream;
pub mod eco;
pub mod resolve;
pub mod front;
pub mod cli;
pub mod config;
pub mod daemon;
