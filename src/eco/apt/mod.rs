//! apt, which asks dpm as its proxy: which source a request is for, and whether its path names its bytes.
//!
//! What a signed index says of other files is not read yet: they are handed through.

mod want;

pub use want::{Refusal, Source, Target, Want, asks_what_we_are, want};
