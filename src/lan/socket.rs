//! Interfaces, and one multicast socket for each and each family.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::task::{Context, Poll};

use async_io::Async;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::base::near::Subnet;

use super::addresses::Interface;

/// The interfaces that multicast and are up, at most [`INTERFACES`]: neither loopback nor tunnels.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut all: BTreeMap<u32, Interface> = BTreeMap::new();
    for found in if_addrs::get_if_addrs()? {
        let Some(index) = found.index else { continue };
        if found.is_loopback() || found.is_p2p() || !found.is_oper_up() {
            continue;
        }
        let prefix = match &found.addr {
            if_addrs::IfAddr::V4(v4) => v4.prefixlen,
            if_addrs::IfAddr::V6(v6) => v6.prefixlen,
        };
        let subnet = Subnet { address: found.ip(), prefix };
        if all.len() < INTERFACES || all.contains_key(&index) {
            let interface = all.entry(index).or_insert_with(|| Interface {
                index,
                name: found.name.clone(),
                subnets: Vec::new(),
            });
            interface.subnets.push(subnet);
        }
    }
    Ok(all.into_values().collect())
}

/// Which socket of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// Sends from this address.
    V4(Ipv4Addr),
    V6,
}

impl Family {
    /// Those that the interface has addresses of.
    pub(super) fn of(interface: &Interface) -> impl Iterator<Item = Self> {
        let addresses = || interface.subnets.iter().map(|subnet| subnet.address);
        let v4 = addresses().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(Self::V4(v4)) } else { None });
        let v6 = addresses().any(|ip| ip.is_ipv6()).then_some(Self::V6);
        v4.into_iter().chain(v6)
    }
}

/// A socket that hears one interface's multicast DNS, and nothing else.
#[derive(Debug)]
pub(super) struct Multicast {
    io: Async<UdpSocket>,
    group: SocketAddr,
}

impl Multicast {
    /// Opens it, beside whoever else on this machine listens to multicast DNS.
    ///
    /// It is bound to the group's address, so the kernel gives it what was sent to the group on this very interface:
    /// by RFC 6762, section 11, that came from this link. Datagrams to this machine alone stay with those who wait
    /// for them.
    pub(super) fn open(interface: &Interface, family: Family) -> io::Result<Self> {
        let domain = if family == Family::V6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        let group = match family {
            Family::V4(address) => {
                socket.set_multicast_all_v4(false)?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface.index))?;
                socket.set_multicast_if_v4(&address)?;
                socket.set_multicast_ttl_v4(HOPS)?;
                socket.set_ttl_v4(HOPS)?;
                socket.set_multicast_loop_v4(true)?;
                SocketAddr::V4(SocketAddrV4::new(GROUP_V4, PORT))
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.set_multicast_all_v6(false)?;
                socket.join_multicast_v6(&GROUP_V6, interface.index)?;
                socket.set_multicast_if_v6(interface.index)?;
                socket.set_multicast_hops_v6(HOPS)?;
                socket.set_unicast_hops_v6(HOPS)?;
                socket.set_multicast_loop_v6(true)?;
                SocketAddr::V6(SocketAddrV6::new(GROUP_V6, PORT, 0, interface.index))
            }
        };
        socket.bind(&group.into())?;
        Ok(Self { io: Async::new_nonblocking(socket.into())?, group })
    }

    /// Takes the next datagram. A longer one is cut at the buffer's length.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            match self.io.get_ref().recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.io.poll_readable(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Sends to everybody. Never waits: what the kernel has no room for is lost, as on the way.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send_to(packet, self.group)
    }

    /// Sends to one. Never waits.
    pub(super) fn send_to(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        self.io.get_ref().send_to(packet, to).map(drop)
    }
}

/// Multicast DNS: RFC 6762, section 3.
pub(super) const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// RFC 6762, section 11: some receivers drop what was routed, which they see by this number.
const HOPS: u32 = 255;

/// Most interfaces listened on. A machine with more has them for containers or virtual machines.
const INTERFACES: usize = 16;
