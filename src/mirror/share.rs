//! Which of a room's nodes keeps which file, so that each is kept by a few and nobody has to be asked. Pure.
//!
//! Every node puts the others in an order that differs from file to file and is the same for all (rendezvous hashing).
//! A node's place in it says when its turn is, and not whether: those before it may have no room, or may not follow the
//! room at all, which nobody tells. Whoever gets a file says so in the room, and the turns of the others end.

use std::time::Duration;

use crate::base::{PeerId, Sha256};

/// Nodes that a file is kept by, at the least: one may be gone for good while another is switched off.
pub(super) const COPIES: usize = 3;

/// Time from one node's turn to the next one's: to fetch most files, and to say so in the room.
pub(super) const TURN: Duration = Duration::from_secs(60);

/// When it is this node's turn to fetch a file, from when it was heard of. `None` while enough have it.
///
/// `nodes` are the nodes of the room's present members, `holders` those that have it.
pub(super) fn turn(own: &PeerId, nodes: &[PeerId], holders: &[PeerId], file: &Sha256) -> Option<Duration> {
    let holding = holders.iter().filter(|holder| *holder != own).count();
    let missing = COPIES.checked_sub(holding).filter(|missing| *missing > 0)?;
    let weight = weight(own, file);
    let before = nodes.iter().filter(|node| *node != own && !holders.contains(node));
    let place = before.filter(|node| self::weight(node, file) < weight).count();
    let turns = (place + 1).saturating_sub(missing);
    Some(TURN.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)))
}

fn weight(peer: &PeerId, file: &Sha256) -> Sha256 {
    Sha256::of(&[&file.0[..], &peer.to_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_divided() {
        let nodes: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
        let mut load = vec![0; nodes.len()];
        for n in 0..2000_u32 {
            let file = Sha256::of(&n.to_le_bytes());
            let holder = [nodes[n as usize % nodes.len()]];
            let turns: Vec<_> = nodes.iter().map(|own| turn(own, &nodes, &holder, &file)).collect();
            let now = |node: &usize| turns[*node] == Some(Duration::ZERO) && nodes[*node] != holder[0];
            let first: Vec<usize> = (0..nodes.len()).filter(now).collect();
            assert_eq!(first.len(), COPIES - 1, "two more take it at once");
            first.iter().for_each(|node| load[*node] += 1);
            let mut later: Vec<_> = turns.iter().flatten().filter(|turn| !turn.is_zero()).collect();
            later.sort();
            later.dedup();
            assert!(later.len() >= nodes.len() - COPIES - 1, "and the others one after another");
        }
        // 200 each, were it even.
        assert!(load.iter().all(|files| (120..300).contains(files)), "{load:?}");
    }

    #[test]
    fn enough_is_enough() {
        let nodes: Vec<PeerId> = (0..5).map(|_| PeerId::random()).collect();
        let file = Sha256::of(b"file");
        assert_eq!(turn(&nodes[4], &nodes, &nodes[..3], &file), None);
        assert!(turn(&nodes[4], &nodes, &nodes[..2], &file).is_some());
        assert!(
            turn(&nodes[4], &nodes, &[nodes[0], nodes[1], nodes[4]], &file).is_some(),
            "its own word is none"
        );
        // Two in a room: both have everything.
        assert_eq!(turn(&nodes[1], &nodes[..2], &nodes[..1], &file), Some(Duration::ZERO));
        assert_eq!(turn(&nodes[1], &[], &nodes[..1], &file), Some(Duration::ZERO));
    }
}
