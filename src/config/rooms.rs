//! What dpm is told of Matrix rooms.

use std::time::Duration;

use crate::base::{Multiaddr, Protocol};
use crate::members::{MAX_AGE, Mode};
use crate::wire::room::{Allow, MOST_ADDRESS_BYTES, MOST_ADDRESSES, MOST_NAME_BYTES, is_name};

use super::near::listen_address;

/// What members of rooms are to this node, and what it is to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rooms {
    /// How a room is used that is joined without saying how.
    pub mirror: Mode,
    /// The most that is fetched because members have it, of a room that is followed.
    pub budget_bytes: u64,
    /// How old the word of a member may be.
    pub max_age: Duration,
    /// Which addresses of members are dialled, and which of its own this node tells.
    pub addresses: Allow,
    /// Addresses that this node is reached under and cannot know of: a router's, with its port.
    pub advertise: Vec<Multiaddr>,
    /// What members read of this node; `None` for the host's name.
    pub name: Option<String>,
    /// How fast events are sent.
    pub pace: Pace,
}

/// How fast events are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Events a second in the long run.
    pub per_second: f64,
    /// Events at once after a rest.
    pub burst: u32,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            mirror: Mode::Lazy,
            budget_bytes: 10_000_000_000,
            max_age: MAX_AGE,
            addresses: Allow::Global,
            advertise: Vec::new(),
            name: None,
            // Synapse's own default (`rc_message`), as `room::Pace` has it.
            pace: Pace { per_second: 0.2, burst: 10 },
        }
    }
}

impl Rooms {
    /// What members read of this node: as stated, else the host's name.
    pub fn display_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.name.clone().or_else(|| Some(host()).filter(|host| is_name(host))).unwrap_or_default()
    }
}

/// Reads [`Rooms::mirror`].
pub(super) fn mirror(text: &str) -> Result<Mode, String> {
    text.parse()
}

/// Reads [`Rooms::addresses`].
pub(super) fn addresses(text: &str) -> Result<Allow, String> {
    match text {
        "global" => Ok(Allow::Global),
        "all" => Ok(Allow::Near),
        _ => Err(format!(
            "{text:?} are no addresses: \"global\" are those of the internet, \"all\" private networks', too"
        )),
    }
}

/// Reads one of [`Rooms::advertise`].
pub(super) fn advertised(text: &str) -> Result<Multiaddr, String> {
    let example = "/ip4/198.51.100.7/udp/4001/quic-v1";
    let address = listen_address(text)
        .map_err(|_| format!("{text:?} is no address that members can dial, as {example} is"))?;
    let leads = address.iter().all(|part| match part {
        Protocol::Ip4(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        Protocol::Ip6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        Protocol::Udp(port) => port != 0,
        _ => true,
    });
    match leads && text.len() <= MOST_ADDRESS_BYTES {
        true => Ok(address),
        false => Err(format!(
            "{text:?} leads to no one place: name the address and port as seen from outside, as {example}"
        )),
    }
}

/// Most of [`Rooms::advertise`]: a node's own addresses stand beside them.
pub(super) const MOST_ADVERTISED: usize = MOST_ADDRESSES / 2;

/// Reads [`Rooms::name`].
pub(super) fn display_name(text: &str) -> Result<String, String> {
    match is_name(text) && !text.trim().is_empty() {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name to show: 1 to {MOST_NAME_BYTES} bytes on one line")),
    }
}

/// Checks a [`Pace`].
pub(super) fn pace(per_second: f64, burst: u32) -> Result<Pace, String> {
    match per_second.is_finite() && per_second > 0.0 && burst > 0 {
        true => Ok(Pace { per_second, burst }),
        false => Err("both are above 0, as { per_second = 0.2, burst = 10 } says".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_members_can_dial() {
        let rows = [
            ("/ip4/198.51.100.7/udp/4001/quic-v1", true),
            ("/ip4/192.168.1.7/udp/4001/quic-v1", true),
            ("/ip6/2001:db8::7/udp/1/quic-v1", true),
            ("/ip4/0.0.0.0/udp/4001/quic-v1", false),
            ("/ip6/::/udp/4001/quic-v1", false),
            ("/ip4/224.0.0.251/udp/4001/quic-v1", false),
            ("/ip4/198.51.100.7/udp/0/quic-v1", false),
            ("/ip4/198.51.100.7/tcp/4001", false),
            ("/dns4/box.example.org/udp/4001/quic-v1", false),
            ("198.51.100.7:4001", false),
        ];
        for (text, good) in rows {
            assert_eq!(advertised(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn words() {
        assert_eq!((addresses("all"), addresses("global")), (Ok(Allow::Near), Ok(Allow::Global)));
        let long = "a".repeat(65);
        for (name, good) in [
            ("ada's laptop", true),
            ("", false),
            (" ", false),
            ("a\nb", false),
            ("a\u{202e}b", false),
            (&long, false),
        ] {
            assert_eq!(display_name(name).is_ok(), good, "{name:?}");
        }
        for (per_second, burst, good) in [
            (0.2, 10, true),
            (0.0, 10, false),
            (-1.0, 1, false),
            (f64::NAN, 1, false),
            (f64::INFINITY, 1, false),
            (1.0, 0, false),
        ] {
            assert_eq!(pace(per_second, burst).is_ok(), good, "{per_second} {burst}");
        }
    }
}
