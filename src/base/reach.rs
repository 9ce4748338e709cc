//! Where an IP address leads: to the public internet, or to somewhere that a stranger must not send us. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an IP address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// The public internet.
    Global,
    /// RFC 1918, RFC 4193, and addresses shared by a provider's customers (RFC 6598).
    Private,
    /// This link.
    LinkLocal,
    /// This machine.
    Loopback,
    /// What a cloud tells its machines, credentials among it: never anybody's peer.
    Metadata,
    /// Nothing that answers one host: unspecified, multicast, reserved, documentation.
    Nowhere,
}

/// Where an address leads. One that carries an IPv4 address (mapped, NAT64, 6to4) leads where that does.
pub fn region(address: IpAddr) -> Region {
    let address = carried(address.to_canonical());
    if METADATA.contains(&address) {
        return Region::Metadata;
    }
    if is_global(address) {
        return Region::Global;
    }
    match address {
        _ if address.is_loopback() => Region::Loopback,
        IpAddr::V4(v4) if v4.is_link_local() => Region::LinkLocal,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Region::LinkLocal,
        IpAddr::V4(v4) if v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]) => Region::Private,
        IpAddr::V6(v6) if v6.is_unique_local() => Region::Private,
        _ => Region::Nowhere,
    }
}

/// The IPv4 address within a NAT64 or 6to4 one; else the address itself.
fn carried(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// Where clouds have their metadata services: most of them, containers of one, Alibaba, Azure, Oracle, EC2 by IPv6.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an address is one that anybody could reach: neither this machine, nor this network, nor reserved.
///
/// From the IANA special-purpose registries (RFC 6890 and successors). An IPv6 address that carries an IPv4 one
/// (mapped, NAT64, 6to4) is judged by what it carries; IPv4-compatible ones are refused altogether.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // "This network", private, loopback, multicast, reserved and broadcast.
        [0 | 10 | 127 | 224..=255, ..] => true,
        // Carrier-grade NAT, RFC 6598.
        [100, 64..=127, ..] => true,
        // Link-local: cloud metadata services live here.
        [169, 254, ..] => true,
        [172, 16..=31, ..] => true,
        // IETF protocol assignments, documentation, the retired 6to4 relay, private.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 168, ..] => true,
        // Benchmarks, RFC 2544.
        [198, 18 | 19, ..] => true,
        // Documentation.
        [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_global_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // NAT64's well-known prefix: what DNS64 answers on a network without IPv4. The local one, 64:ff9b:1::/48,
        // falls through.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // IETF protocol assignments, Teredo and ORCHID among them: 2001::/23.
        [0x2001, 0..=0x01ff, ..] => false,
        // Documentation, old and new.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Only 2000::/3 is handed out as global unicast; loopback, ULA, link-local, multicast are outside it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions() {
        let rows = [
            ("8.8.8.8", Region::Global),
            ("2606:4700::1111", Region::Global),
            ("64:ff9b::808:808", Region::Global),
            ("10.1.2.3", Region::Private),
            ("100.64.0.1", Region::Private),
            ("::ffff:192.168.1.1", Region::Private),
            ("2002:a00:1::1", Region::Private),
            ("fd12:3456::1", Region::Private),
            ("169.254.1.1", Region::LinkLocal),
            ("fe80::1", Region::LinkLocal),
            ("127.9.9.9", Region::Loopback),
            ("::1", Region::Loopback),
            ("64:ff9b::7f00:1", Region::Loopback),
            ("169.254.169.254", Region::Metadata),
            ("::ffff:169.254.169.254", Region::Metadata),
            ("64:ff9b::a9fe:a9fe", Region::Metadata),
            ("2002:a9fe:a9fe::1", Region::Metadata),
            ("168.63.129.16", Region::Metadata),
            ("fd00:ec2::254", Region::Metadata),
            ("0.0.0.0", Region::Nowhere),
            ("::", Region::Nowhere),
            ("192.0.2.1", Region::Nowhere),
            ("224.0.0.251", Region::Nowhere),
            ("255.255.255.255", Region::Nowhere),
            ("ff02::fb", Region::Nowhere),
            ("2001:db8::1", Region::Nowhere),
        ];
        for (text, want) in rows {
            assert_eq!(region(text.parse().unwrap()), want, "{text}");
        }
    }

    #[test]
    fn every_class() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.251",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::a00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "::808:808",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::fb",
            "ff0e::1",
        ];
        for text in refused {
            assert!(!is_global(text.parse().unwrap()), "{text} was let through");
        }
        let allowed = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
            "3fff:1000::1",
        ];
        for text in allowed {
            assert!(is_global(text.parse().unwrap()), "{text} was refused");
        }
    }
}
