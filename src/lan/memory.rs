//! Who was told of, where, and until when. Pure; fed with `now`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::base::PeerId;

use super::packet::Told;

/// The peers that were told of lately, and when each was last passed on.
#[derive(Debug)]
pub(super) struct Memory {
    peers: HashMap<PeerId, Known>,
    most: usize,
}

#[derive(Debug)]
struct Known {
    /// Who told of it last.
    source: IpAddr,
    places: Vec<(SocketAddr, Instant)>,
    passed_on: Instant,
}

impl Known {
    /// When nothing of it holds any more.
    fn until(&self) -> Option<Instant> {
        self.places.iter().map(|(_, until)| *until).max()
    }

    fn told(&self, peer: PeerId, ttl: Duration) -> Told {
        Told { peer, places: self.places.iter().map(|(place, _)| *place).collect(), ttl }
    }
}

impl Memory {
    /// Remembers `most` peers.
    pub(super) fn new(most: usize) -> Self {
        Self { peers: HashMap::new(), most }
    }

    /// Takes in what `source` told; its places have been judged. Gives what is to be passed on: somebody new, a new
    /// place, a goodbye, or the same again after [`REPEAT`].
    pub(super) fn hear(&mut self, told: Told, source: IpAddr, now: Instant) -> Option<Told> {
        let Told { peer, mut places, ttl } = told;
        if ttl.is_zero() {
            let known = self.peers.remove(&peer)?;
            return Some(known.told(peer, Duration::ZERO));
        }
        if places.is_empty() {
            return None;
        }
        places.truncate(PLACES);
        let (ttl, mut news) = (ttl.min(LONGEST_TTL), false);
        if !self.peers.contains_key(&peer) {
            self.make_room(source);
            self.peers.insert(peer, Known { source, places: Vec::new(), passed_on: now });
            news = true;
        }
        let known = self.peers.get_mut(&peer)?;
        known.source = source;
        known.places.retain(|(_, until)| *until > now);
        for place in places {
            match known.places.iter_mut().find(|(other, _)| *other == place) {
                Some((_, until)) => *until = now + ttl,
                None => {
                    news = true;
                    if known.places.len() >= PLACES {
                        let first = (0..PLACES).min_by_key(|at| known.places[*at].1)?;
                        known.places.remove(first);
                    }
                    known.places.push((place, now + ttl));
                }
            }
        }
        if !news && now < known.passed_on + REPEAT {
            return None;
        }
        known.passed_on = now;
        Some(known.told(peer, ttl))
    }

    /// What was told of a peer holds no more, as far as is known: it is news when it is told again.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Makes room for one more peer of this source: among its own first when it has told of many, so that a liar
    /// crowds out himself.
    fn make_room(&mut self, source: IpAddr) {
        let own = self.peers.values().filter(|known| known.source == source).count();
        let among = |known: &Known| own < PEERS_PER_SOURCE || known.source == source;
        if own < PEERS_PER_SOURCE && self.peers.len() < self.most {
            return;
        }
        let first =
            self.peers.iter().filter(|(_, known)| among(known)).min_by_key(|(_, known)| known.until());
        if let Some(first) = first.map(|(peer, _)| *peer) {
            self.peers.remove(&first);
        }
    }

    /// Forgets what no longer holds, and gives a farewell for each who is gone.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Told> {
        let gone = |known: &Known| known.until().is_none_or(|until| until <= now);
        let all: Vec<PeerId> = self.peers.iter().filter(|(_, k)| gone(k)).map(|(peer, _)| *peer).collect();
        all.into_iter()
            .filter_map(|peer| Some(self.peers.remove(&peer)?.told(peer, Duration::ZERO)))
            .collect()
    }

    /// How many peers are remembered.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

/// Most addresses of a peer: more than a machine with a few networks has.
pub(super) const PLACES: usize = 16;

/// Most peers that one source may have told of: one machine may run several, or reflect another network's.
const PEERS_PER_SOURCE: usize = 64;

/// Longest that anything is believed: an honest peer tells it again every few minutes.
const LONGEST_TTL: Duration = Duration::from_secs(3600);

/// When the same is passed on again: whoever could not be reached may be by now.
const REPEAT: Duration = Duration::from_secs(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let [a, b] = n.to_be_bytes();
        PeerId::from_bytes(&[0, 2, a, b]).unwrap()
    }

    fn told(n: u16, places: &[u16], ttl: u64) -> Told {
        let places = places.iter().map(|port| SocketAddr::new([10, 0, 0, 1].into(), *port)).collect();
        Told { peer: peer(n), places, ttl: Duration::from_secs(ttl) }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn what_is_passed_on() {
        let start = Instant::now();
        let mut memory = Memory::new(9);
        // Seconds, ports told, TTL, and how many addresses are passed on.
        let rows: [(u64, &[u16], u64, Option<usize>); 10] = [
            (0, &[], 120, None),
            (0, &[1], 120, Some(1)),
            (1, &[1], 120, None),
            (2, &[1, 2], 120, Some(2)),
            (3, &[2], 120, None),
            (60, &[2], 120, Some(2)),
            (150, &[3], 120, Some(2)),
            (151, &[], 0, Some(2)),
            (152, &[], 0, None),
            (153, &[1], 120, Some(1)),
        ];
        for (row, (seconds, places, ttl, want)) in rows.into_iter().enumerate() {
            let now = start + Duration::from_secs(seconds);
            let got = memory.hear(told(1, places, ttl), HERE, now);
            assert_eq!(got.as_ref().map(|s| s.places.len()), want, "row {row}: {got:?}");
        }
        assert_eq!(memory.expire(start + Duration::from_secs(272)), []);
        let gone = memory.expire(start + Duration::from_secs(273));
        assert_eq!((gone.len(), gone[0].peer, gone[0].ttl), (1, peer(1), Duration::ZERO));
        assert_eq!(memory.len(), 0);

        let hear = |memory: &mut Memory| memory.hear(told(1, &[1], 120), HERE, start).is_some();
        assert_eq!([hear(&mut memory), hear(&mut memory)], [true, false]);
        memory.forget(&peer(1));
        assert!(hear(&mut memory), "the connection to it was lost");
    }

    #[test]
    fn everything_is_bounded() {
        let now = Instant::now();
        let mut memory = Memory::new(100);
        let ports: Vec<u16> = (1..999).collect();
        assert_eq!(memory.hear(told(0, &ports, 120), HERE, now).unwrap().places.len(), PLACES);
        for port in 2000..2100 {
            let sighting = memory.hear(told(0, &[port], 999_999), HERE, now).unwrap();
            assert_eq!(sighting.places.len(), PLACES);
        }
        assert!(memory.expire(now + LONGEST_TTL).len() == 1, "no time is believed for longer");
        for n in 0..1000 {
            memory.hear(told(n, &[1], 120), HERE, now);
        }
        assert_eq!(memory.len(), PEERS_PER_SOURCE);
        for n in 1000..2000 {
            memory.hear(told(n, &[1], 120), IpAddr::V4(u32::from(n).into()), now);
            assert!(memory.len() <= 100);
        }
        assert!(memory.hear(told(2000, &[1], 120), HERE, now).is_some(), "a newcomer is heard");
    }

    #[test]
    fn a_liar_crowds_out_himself() {
        let now = Instant::now();
        let mut memory = Memory::new(1024);
        let honest = IpAddr::from([10, 0, 0, 9]);
        memory.hear(told(1, &[1], 10), honest, now);
        for n in 100..9000 {
            memory.hear(told(n, &[1], 3600), HERE, now);
        }
        assert!(memory.peers.contains_key(&peer(1)));
    }
}
