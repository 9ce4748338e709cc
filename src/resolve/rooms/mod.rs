//! What the members of rooms say of a name whose upstream fails: it stands in where nothing is known, and completes what
//! is known and past its time.
//!
//! It is made for every request anew and kept nowhere as the upstream's word. A name whose upstream failed is asked for
//! again [`FAILURE_REST`](super::memory::FAILURE_REST) later, so that is how long a room stands in for one that is
//! back.

mod answer;
mod image;
mod page;

use std::time::Duration;

use crate::base::PackageUrl;
use crate::members::{Known, Members};
use crate::rt::Gate;

pub(super) use image::{Told, image};
pub(super) use page::{RoomPage, page};

/// How long an upstream may take, where nothing can be served but what a room says. Longer than with a page of its own
/// at hand, for a room's page lacks what no member has; shorter than the 15 s after which pip gives a server up.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// Asks the members, if there are any.
#[derive(Clone)]
pub(super) struct Rooms {
    members: Option<Members>,
    disk: Gate,
}

impl Rooms {
    pub(super) fn new(members: Option<Members>, disk: Gate) -> Self {
        Self { members, disk }
    }

    /// What they say of a package. `None` when that is nothing.
    pub(super) async fn ask(&self, package: PackageUrl) -> Option<Known> {
        let members = self.members.clone()?;
        let asked = package.clone();
        match self.disk.run(move || members.package(&asked)).await {
            Ok(known) => Some(known).filter(|k| !k.entries.is_empty() || !k.disputed.is_empty()),
            Err(e) => {
                log::error!("what rooms say of {package} cannot be read: {e}");
                None
            }
        }
    }
}

/// Those who say so, for the log.
pub(super) fn tellers(known: &Known) -> String {
    let tellers: Vec<_> = known.tellers.iter().map(ToString::to_string).collect();
    if tellers.is_empty() { "nobody alone".to_owned() } else { tellers.join(", ") }
}
