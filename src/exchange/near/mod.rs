//! `/dpm/near/1`: what dpm nodes say to each other.
//!
//! A stream begins with what it is for: a question ("have you these?", which is also a claim), an artifact to take in
//! chunks, news of what a node has, or blocks of catalogues to give.

mod ask;
mod blocks;
mod give;
mod io;
mod news;
mod serve;
mod take;

pub use ask::Answer;
pub use blocks::BlocksError;
pub use take::{Aside, Chunk, Claim, Handed, Invitation, Outcome, Over, SoFar, Taking, Want};

pub(super) use give::Given;
pub(super) use news::tell;
pub(super) use serve::serve;

pub use crate::wire::near::PROTOCOL as NEAR;
