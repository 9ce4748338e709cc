//! Which IP addresses are near: on this machine, or on a network that no router leads to from outside. Pure.

use std::net::IpAddr;

/// Whether an address is private (RFC 1918, RFC 4193), link-local or loopback.
///
/// An IPv4-mapped IPv6 address is judged by what it carries. Addresses shared by a provider's customers
/// (100.64.0.0/10) are not near: their neighbours are strangers.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// An interface's address and how many of its bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    /// The interface's own address.
    pub address: IpAddr,
    /// Bits of it that all of the network's addresses share: at most 32 or 128, more count as these.
    pub prefix: u8,
}

impl Subnet {
    /// Whether the address is one of this network's. Never for the other family, nor for a network of all addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        if self.prefix == 0 {
            return false;
        }
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let rest = 32_u32.saturating_sub(self.prefix.into());
                (ours.to_bits() ^ theirs.to_bits()) >> rest == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let rest = 128_u32.saturating_sub(self.prefix.into());
                (ours.to_bits() ^ theirs.to_bits()) >> rest == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range() {
        let near = [
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "::1",
            "::ffff:192.168.1.1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
        ];
        for text in near {
            assert!(is_near(text.parse().unwrap()), "{text}");
        }
        let far = [
            "0.0.0.0",
            "1.1.1.1",
            "100.64.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::ffff:8.8.8.8",
            "2001:db8::1",
            "2606:4700::1",
            "fec0::1",
            "ff02::fb",
        ];
        for text in far {
            assert!(!is_near(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_a_subnet_contains() {
        let rows = [
            ("192.0.2.9", 24, "192.0.2.255", true),
            ("192.0.2.9", 24, "192.0.3.9", false),
            ("192.0.2.9", 32, "192.0.2.9", true),
            ("192.0.2.9", 32, "192.0.2.8", false),
            ("192.0.2.9", 99, "192.0.2.9", true),
            ("192.0.2.9", 0, "192.0.2.9", false),
            ("192.0.2.9", 1, "10.0.0.1", false),
            ("192.0.2.9", 24, "::ffff:192.0.2.9", false),
            ("2001:db8:1::9", 64, "2001:db8:1::1:2:3:4", true),
            ("2001:db8:1::9", 64, "2001:db8:1:1::9", false),
            ("2001:db8:1::9", 128, "2001:db8:1::9", true),
            ("2001:db8:1::9", 0, "2001:db8:1::9", false),
        ];
        for (address, prefix, other, contains) in rows {
            let subnet = Subnet { address: address.parse().unwrap(), prefix };
            assert_eq!(subnet.contains(other.parse().unwrap()), contains, "{other} in {address}/{prefix}");
        }
    }
}
