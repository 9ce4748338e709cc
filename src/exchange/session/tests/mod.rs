//! The session against a network in memory.

mod cases;
mod crowd;
mod net;
mod random;
