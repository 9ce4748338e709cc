//! dpm, the distributed package manager.
//!
//! `ARCHITECTURE.md` draws the house: the rooms below are listed from the ground up, and imports only go down.

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
