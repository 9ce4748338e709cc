//! Rooms and their members as people are shown them.

use std::time::Duration;

use crate::base::{Multiaddr, PeerId};
use crate::catalogue::{Entry, Root};
use crate::rt::UnixMillis;

use super::{Members, MembersError, Mode};

/// A room.
#[derive(Clone, Debug)]
pub struct RoomView {
    /// Its id.
    pub room: String,
    /// Its name.
    pub name: Option<String>,
    /// How it is used here.
    pub mode: Mode,
    /// Packages and patterns that it mirrors.
    pub scope: Vec<String>,
    /// This node's own catalogue there.
    pub own: Option<Root>,
    /// Nodes, those of former members too.
    pub nodes: Vec<NodeView>,
    /// What counted for nothing lately, the latest last.
    pub refused: Vec<Refused>,
}

/// A node of a room.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The user who speaks for it.
    pub user: String,
    /// Who it is among peers.
    pub peer: PeerId,
    /// What it calls itself.
    pub name: String,
    /// Program and version.
    pub agent: String,
    /// Whether its user is in the room. The word of others counts for nothing.
    pub present: bool,
    /// How old its last word is.
    pub age: Duration,
    /// Whether that is too old for names.
    pub too_old: bool,
    /// Where it may be dialled.
    pub addresses: Vec<Multiaddr>,
    /// Addresses that are not dialled, with the reason.
    pub refused_addresses: Vec<(String, String)>,
    /// The newest catalogue that it signed.
    pub newest: Option<Root>,
    /// Its catalogue that is here.
    pub here: Option<Root>,
    /// Why the newest is not here.
    pub trouble: Option<String>,
}

/// An event that counted for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who sent it.
    pub sender: String,
    /// Its type.
    pub kind: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: UnixMillis,
}

impl Members {
    /// All rooms. Touches no disk.
    pub fn rooms(&self) -> Vec<RoomView> {
        let (now, options) = (self.inner.options.clock.now(), &self.inner.options);
        let rooms = self.lock();
        let view = |room: &super::Room| RoomView {
            room: room.id.clone(),
            name: room.name.clone(),
            mode: room.mode,
            scope: room.scope.patterns().into_iter().map(str::to_owned).collect(),
            own: room.own,
            refused: room.refused.iter().cloned().collect(),
            nodes: room
                .nodes
                .iter()
                .map(|(peer, node)| {
                    let age = node.age(now);
                    NodeView {
                        user: node.sender.clone(),
                        peer: *peer,
                        name: node.advert.name.clone(),
                        agent: node.advert.agent.clone(),
                        present: room.is_present(peer),
                        too_old: age > options.max_age,
                        age,
                        addresses: node.addresses.clone(),
                        refused_addresses: node.refused_addresses.clone(),
                        newest: node.goal_root(),
                        here: node.have_root(),
                        trouble: node.trouble.clone(),
                    }
                })
                .collect(),
        };
        rooms.values().map(view).collect()
    }

    /// Shows every entry of a node's catalogue that is here, within the room's scope. Blocks.
    pub fn entries(
        &self,
        room: &str,
        peer: &PeerId,
        visit: &mut impl FnMut(Entry),
    ) -> Result<(), MembersError> {
        let found = {
            let rooms = self.lock();
            let room = rooms.get(room).ok_or_else(|| MembersError::NoRoom(room.to_owned()))?;
            room.nodes.get(peer).and_then(|node| node.have_root()).map(|root| (root, room.scope.clone()))
        };
        let Some((root, scope)) = found else { return Ok(()) };
        self.walk(&root, &mut |entry| {
            if scope.has(&entry.purl) {
                visit(entry);
            }
        })
    }
}
