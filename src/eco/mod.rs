//! Package ecosystems, as pure functions: what does this request want, what facts does this index tell, and the
//! index with its links turned to us.
//!
//! Nothing here does I/O, reads a clock or spawns; no input makes it panic. It knows of no store, no upstream and
//! no HTTP library: a room above brings the bytes and takes the answer away.

pub mod apt;
pub mod lock;
pub mod oci;
mod path;
pub mod pypi;

pub use path::PathError;
