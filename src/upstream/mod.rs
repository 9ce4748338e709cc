//! Asks upstreams over HTTP: the only place that uses ureq, always on a thread that may block.
//!
//! Decides where a request may go, what it carries, how long it may take and how often it is tried; what comes
//! back is a [`Head`] and a streaming [`Body`]. It knows no ecosystem, no digest and no file: whoever asked
//! checks the bytes. Nothing here writes to disk, and nothing reads the environment but the CA store.
//!
//! | file | role |
//! |---|---|
//! | `client` | [`Client::open`]: redirects, repeats, and what an answer means |
//! | `challenge`, `tokens` | what a registry wants to see of whoever asks, and who may be asked for it |
//! | `ask`, `answer`, `body` | what is asked, what came back, and the bytes of it |
//! | `origins` | who is resting, who is avoided, and the counters |
//! | `resolver` | which addresses a name may lead to (`base::reach` knows them) |
//! | `settings`, `transport` | everything that is set in ureq, and what it lacks |

mod answer;
mod ask;
mod body;
mod challenge;
mod client;
mod error;
mod origins;
mod resolver;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod transport;

pub use answer::{Answer, Head, RateLimit, Status};
pub use ask::{Ask, Credentials, Method, Protocol, Range, Site};
pub use body::Body;
pub use client::Client;
pub use error::{Phase, UpstreamError};
pub use origins::OriginState;
pub use settings::Options;
