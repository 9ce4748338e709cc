//! What a node says of itself: where it is, and what it is called. Pure.

use crate::base::{Multiaddr, PeerId};
use crate::base::{
    Protocol,
    reach::{Region, region},
};
use crate::wire::room::{Allow, MOST_ADDRESSES, dialable};

/// The addresses that members are told: those that the operator named, for he knows his router; then those of this
/// machine that members dial. Near ones only where that is allowed, and this machine's own only where there is no other.
pub(super) fn addresses(
    own: &PeerId,
    listeners: &[Multiaddr],
    named: &[Multiaddr],
    allow: Allow,
) -> Vec<String> {
    let mut found: Vec<(Rank, String)> = Vec::new();
    let named = named.iter().map(|address| (true, address));
    for (is_named, address) in named.chain(listeners.iter().map(|address| (false, address))) {
        let text = address.to_string();
        if dialable(&text, own, allow).is_err() || found.iter().any(|(_, known)| *known == text) {
            continue;
        }
        let rank = match region_of(address) {
            _ if is_named => Rank::Named,
            Some(Region::Global) => Rank::Global,
            Some(Region::Loopback) => Rank::Here,
            _ => Rank::Near,
        };
        found.push((rank, text));
    }
    if found.iter().any(|(rank, _)| *rank != Rank::Here) {
        found.retain(|(rank, _)| *rank != Rank::Here);
    }
    found.sort();
    found.truncate(MOST_ADDRESSES);
    found.into_iter().map(|(_, text)| text).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    Global,
    Near,
    Here,
}

fn region_of(address: &Multiaddr) -> Option<Region> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(region(ip.into())),
        Protocol::Ip6(ip) => Some(region(ip.into())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listeners: &[&str], named: &[&str], allow: Allow, want: &[&str]) {
        let read = |all: &[&str]| {
            all.iter().map(|a| format!("{a}/udp/1/quic-v1").parse().unwrap()).collect::<Vec<_>>()
        };
        let want: Vec<_> = want.iter().map(|a| format!("{a}/udp/1/quic-v1")).collect();
        assert_eq!(
            addresses(&PeerId::random(), &read(listeners), &read(named), allow),
            want,
            "{listeners:?} {named:?}"
        );
    }

    #[test]
    fn where_members_dial() {
        let (public, v6, home, here) =
            ("/ip4/1.1.1.1", "/ip6/2606:4700::1", "/ip4/192.168.1.7", "/ip4/127.0.0.1");
        let all = [here, home, v6];
        check(&all, &[], Allow::Global, &[v6]);
        check(&all, &[public], Allow::Global, &[public, v6]);
        check(&all, &[], Allow::Near, &[v6, home]);
        check(&[here], &[], Allow::Near, &[here]);
        check(&[here], &[], Allow::Global, &[]);
        check(&[home, here], &[home], Allow::Near, &[home]);
        check(&[], &["/ip4/169.254.169.254", "/ip4/10.0.0.1"], Allow::Global, &[]);
        let many: Vec<String> = (1..40).map(|n| format!("/ip4/8.8.8.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = addresses(
            &PeerId::random(),
            &many.iter().map(|a| format!("{a}/udp/1/quic-v1").parse().unwrap()).collect::<Vec<_>>(),
            &[],
            Allow::Global,
        );
        assert_eq!(told.len(), MOST_ADDRESSES);
    }
}
