//! Peers: who is near, what they gave, how fast, what they say they have, and who lied.
//!
//! Keeps books and decides nothing about bytes: a lie is told to it by whoever caught it.

mod book;
mod claims;
mod credit;

pub use book::{Circle, Peers, Row, STRIKES, Standing};
pub use claims::{CLAIM_TIME, Claims, goes_first};
