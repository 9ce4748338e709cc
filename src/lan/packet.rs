//! mDNS packets as libp2p uses them: bytes to what they ask or tell, and back. Pure; no byte makes it panic.
//!
//! The rules are libp2p's (specs, `discovery/mdns.md`) and RFC 6762's. A peer answers the question
//! `_p2p._udp.local PTR` with `LABEL._p2p._udp.local`, a random label that means nothing, and the TXT record of that
//! name holds strings `dnsaddr=MULTIADDR/p2p/PEER`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::base::{Multiaddr, PeerId, Protocol};

/// What a packet is about, as far as we care.
#[derive(Debug)]
pub(super) enum Packet {
    /// Somebody asks.
    Query(Query),
    /// Somebody tells of peers: possibly none that we understand.
    Response(Vec<Told>),
}

/// Questions that concern us.
#[derive(Debug)]
pub(super) struct Query {
    id: u16,
    /// Those of the packet's questions that may concern us: about libp2p's service or about a host.
    questions: Vec<Question>,
    /// Labels that the asker knows already, for at least half of [`TTL`].
    known: Vec<String>,
}

/// A peer as told by itself, or by somebody who claims to be it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) peer: PeerId,
    /// UDP addresses where it takes QUIC; IPv6 scopes are not set.
    pub(super) places: Vec<SocketAddr>,
    /// How long this holds; zero is a goodbye.
    pub(super) ttl: Duration,
}

/// Reads a packet.
///
/// # Errors
/// [`Malformed`] when it is no DNS message, longer than [`LONGEST`], or neither a query nor an answer.
pub(super) fn read(bytes: &[u8]) -> Result<Packet, Malformed> {
    if bytes.len() > LONGEST || !counts_fit(bytes) {
        return Err(Malformed);
    }
    let message = Message::from_vec(bytes).map_err(|_| Malformed)?;
    // RFC 6762, sections 18.3 and 18.11: anything else must be ignored.
    if message.metadata.op_code != OpCode::Query || u16::from(message.metadata.response_code) != 0 {
        return Err(Malformed);
    }
    let service = service();
    Ok(match message.metadata.message_type {
        MessageType::Query => Packet::Query(Query::of(message, &service)),
        MessageType::Response => Packet::Response(told(&message, &service)),
    })
}

/// Whether the packet is long enough for as many questions and records as it says it has.
fn counts_fit(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return false };
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let least = count(4) * QUESTION_BYTES + (count(6) + count(8) + count(10)) * RECORD_BYTES;
    least <= rest.len()
}

impl Query {
    fn of(message: Message, service: &Name) -> Self {
        let known = message.answers.iter().filter_map(|record| match &record.data {
            RData::PTR(PTR(name))
                if record.name == *service && u64::from(record.ttl) * 2 >= TTL.as_secs() =>
            {
                label_below(name, service)
            }
            _ => None,
        });
        let known = known.collect();
        let questions = message.queries.into_iter().filter(|question| {
            matches!(question.query_class(), DNSClass::IN | DNSClass::ANY)
                && (service.zone_of(question.name()) || local(question.name()) || *question.name() == kinds())
        });
        Self { id: message.metadata.id, questions: questions.take(QUESTIONS).collect(), known }
    }

    /// Whether it asks for everybody who speaks libp2p, and knows nobody yet.
    pub(super) fn is_general(&self) -> bool {
        let service = service();
        self.known.is_empty()
            && self.questions.iter().any(|q| *q.name() == service && asks(q, RecordType::PTR))
    }

    /// Whether the peer of this label should answer.
    pub(super) fn concerns(&self, label: &str) -> bool {
        let (service, kinds) = (service(), kinds());
        let (instance, host) = (below(label, &service), below(label, &domain()));
        self.questions.iter().any(|q| {
            let name = q.name();
            if *name == service {
                return asks(q, RecordType::PTR) && !self.known.iter().any(|known| known == label);
            }
            *name == kinds && asks(q, RecordType::PTR)
                || instance.as_ref() == Some(name) && (asks(q, RecordType::TXT) || asks(q, RecordType::SRV))
                || host.as_ref() == Some(name) && (asks(q, RecordType::A) || asks(q, RecordType::AAAA))
        })
    }

    /// Whether the asker would like the answer for itself alone (RFC 6762, section 5.4).
    pub(super) fn wants_unicast(&self) -> bool {
        !self.questions.is_empty() && self.questions.iter().all(Question::mdns_unicast_response)
    }

    /// Whether it asks which services there are.
    pub(super) fn asks_kinds(&self) -> bool {
        self.questions.iter().any(|q| *q.name() == kinds() && asks(q, RecordType::PTR))
    }
}

fn asks(question: &Question, kind: RecordType) -> bool {
    question.query_type() == kind || question.query_type() == RecordType::ANY
}

/// Whether this is a host's name: one label below `local`.
fn local(name: &Name) -> bool {
    name.num_labels() == 2 && domain().zone_of(name)
}

/// The label of a name that is one level below `parent`, in lower case; labels are names, not bytes to keep apart.
fn label_below(name: &Name, parent: &Name) -> Option<String> {
    let direct = name.num_labels() == parent.num_labels().checked_add(1)? && parent.zone_of(name);
    let label = name.iter().next().filter(|_| direct)?;
    Some(String::from_utf8_lossy(label).to_ascii_lowercase())
}

fn told(message: &Message, service: &Name) -> Vec<Told> {
    let records =
        || message.answers.iter().chain(&message.additionals).filter(|r| r.dns_class == DNSClass::IN);
    let pointers = records().filter_map(|record| match &record.data {
        RData::PTR(PTR(name)) if record.name == *service => Some((name, record.ttl)),
        _ => None,
    });
    let pointers: Vec<(&Name, u32)> = pointers.take(PEERS_PER_PACKET).collect();
    let mut all: Vec<Told> = Vec::new();
    for record in records() {
        let RData::TXT(txt) = &record.data else { continue };
        // rust-libp2p points at names outside the service, others tell a text without pointing at it.
        let pointer = pointers.iter().find(|(name, _)| **name == record.name);
        if pointer.is_none() && label_below(&record.name, service).is_none() {
            continue;
        }
        // A goodbye may withdraw the pointer alone.
        let ttl = pointer.map_or(record.ttl, |(_, ttl)| record.ttl.min(*ttl));
        for (peer, place) in txt.txt_data.iter().filter_map(|text| place_of(text)) {
            let told = match all.iter_mut().position(|told| told.peer == peer) {
                Some(at) => &mut all[at],
                None if all.len() < PEERS_PER_PACKET => {
                    all.push(Told { peer, places: Vec::new(), ttl: Duration::from_secs(ttl.into()) });
                    all.last_mut().expect("just pushed")
                }
                None => continue,
            };
            if let Some(place) = place
                && !told.places.contains(&place)
            {
                told.places.push(place);
            }
        }
    }
    all
}

/// The peer that a TXT string names, and where it takes QUIC, if the string says that.
fn place_of(text: &[u8]) -> Option<(PeerId, Option<SocketAddr>)> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix(PREFIX)?;
    let mut address = Multiaddr::from_str(text).ok()?;
    let Some(Protocol::P2p(peer)) = address.pop() else { return None };
    Some((peer, place(&address)))
}

/// The UDP address of `/ip4|ip6/…/udp/N/quic-v1`, a zone before it left out; `None` for any other form.
pub(super) fn place(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter().peekable();
    parts.next_if(|part| matches!(part, Protocol::Ip6zone(_)));
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::Udp(port), Protocol::QuicV1, None) if port != 0 => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The multiaddr of a UDP address that takes QUIC, behind the interface's name if that belongs to it.
pub(super) fn multiaddr(place: SocketAddr, zone: Option<&str>) -> Multiaddr {
    let zone = zone.map(|name| Protocol::Ip6zone(name.to_owned().into()));
    let parts = [Protocol::from(place.ip()), Protocol::Udp(place.port()), Protocol::QuicV1];
    zone.into_iter().chain(parts).collect()
}

/// What a peer tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    /// 1 to 63 bytes of letters and digits.
    pub(super) label: String,
    pub(super) peer: PeerId,
    /// The best first: some peers read the first packet only.
    pub(super) places: Vec<SocketAddr>,
}

impl Announcement {
    /// The packets that say it to everybody, each of at most [`PACKET_BYTES`]; none when there is no place.
    ///
    /// Zero for `ttl` takes it back.
    pub(super) fn packets(&self, ttl: Duration) -> Vec<Vec<u8>> {
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let strings: Vec<String> = self.places.iter().filter_map(|place| self.string(*place)).collect();
        parts(&strings).filter_map(|part| self.message(0, part, ttl, true)?.to_vec().ok()).collect()
    }

    /// One packet for one asker, who may know plain DNS only (RFC 6762, section 6.7): it repeats the questions, and
    /// what it tells holds for a short time.
    pub(super) fn reply(&self, query: &Query) -> Option<Vec<u8>> {
        let strings: Vec<String> = self.places.iter().filter_map(|place| self.string(*place)).collect();
        let mut message = self.message(query.id, parts(&strings).next()?, LEGACY_TTL, false)?;
        for question in &query.questions {
            let mut question = question.clone();
            question.set_mdns_unicast_response(false);
            message.add_query(question);
        }
        if query.asks_kinds() {
            message.add_answer(Record::from_rdata(kinds(), LEGACY_TTL, RData::PTR(PTR(service()))));
        }
        message.to_vec().ok().filter(|packet| packet.len() <= PACKET_BYTES)
    }

    fn string(&self, place: SocketAddr) -> Option<String> {
        // A zone means something to its own machine only.
        let address = multiaddr(place, None);
        let text = format!("{PREFIX}{address}/p2p/{}", self.peer);
        (text.len() <= STRING_BYTES).then_some(text)
    }

    /// Pointer, text, and for Go's libp2p, which overlooks peers without them, a port and addresses.
    fn message(&self, id: u16, strings: &[String], ttl: u32, flush: bool) -> Option<Message> {
        let service = service();
        let (instance, host) = (below(&self.label, &service)?, below(&self.label, &domain())?);
        let mut message = Message::new(id, MessageType::Response, OpCode::Query);
        message.metadata.authoritative = true;
        message.add_answer(Record::from_rdata(service, ttl, RData::PTR(PTR(instance.clone()))));
        let mut own = |name: &Name, data: RData| {
            let mut record = Record::from_rdata(name.clone(), ttl, data);
            record.mdns_cache_flush = flush;
            message.add_additional(record);
        };
        own(&instance, RData::TXT(TXT::new(strings.to_vec())));
        let port = self.places.first()?.port();
        own(&instance, RData::SRV(SRV::new(0, 0, port, host.clone())));
        if let Some(v4) = self.places.iter().find_map(v4) {
            own(&host, RData::A(A(v4)));
        }
        if let Some(v6) = self.places.iter().find_map(v6) {
            own(&host, RData::AAAA(AAAA(v6)));
        }
        Some(message)
    }
}

fn v4(place: &SocketAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(ip) = place.ip() { Some(ip) } else { None }
}

fn v6(place: &SocketAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(ip) = place.ip() { Some(ip) } else { None }
}

/// Cuts strings into pieces that fit a packet each.
fn parts(mut strings: &[String]) -> impl Iterator<Item = &[String]> {
    std::iter::from_fn(move || {
        let mut room = STRINGS_BYTES;
        let fit = strings.iter().take_while(|text| {
            let left = room.checked_sub(text.len() + 1);
            room = left.unwrap_or(0);
            left.is_some()
        });
        let (part, rest) = strings.split_at(fit.count());
        strings = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// The question who is there.
pub(super) fn query() -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Question::query(service(), RecordType::PTR));
    message.to_vec().unwrap_or_default()
}

/// The answer that libp2p is one of the services here (RFC 6763, section 9).
pub(super) fn kinds_answer() -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.authoritative = true;
    let ttl = u32::try_from(TTL.as_secs()).unwrap_or(u32::MAX);
    message.add_answer(Record::from_rdata(kinds(), ttl, RData::PTR(PTR(service()))));
    message.to_vec().unwrap_or_default()
}

/// Reads a packet as a stranger's, and answers it: for fuzzing. What it finds is thrown away.
pub(super) fn fuzz(bytes: &[u8]) {
    let Ok(Packet::Query(query)) = read(bytes) else { return };
    let places = vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4001)];
    let Ok(peer) = PeerId::from_bytes(&[0, 2, 1, 2]) else { return };
    let ours = Announcement { label: "a".into(), peer, places };
    let _ = (query.concerns(&ours.label), query.is_general(), query.wants_unicast());
    if let Some(reply) = ours.reply(&query) {
        assert!(read(&reply).is_ok(), "what we write can be read");
    }
}

/// `_p2p._udp.local`.
fn service() -> Name {
    name(&["_p2p", "_udp", "local"])
}

/// `_services._dns-sd._udp.local`.
fn kinds() -> Name {
    name(&["_services", "_dns-sd", "_udp", "local"])
}

/// `local`.
fn domain() -> Name {
    name(&["local"])
}

fn name(labels: &[&str]) -> Name {
    let labels = labels.iter().map(|label| label.as_bytes());
    Name::from_labels(labels).expect("short labels of letters make a name")
}

/// `None` when the label is none.
fn below(label: &str, parent: &Name) -> Option<Name> {
    parent.prepend_label(label.as_bytes()).ok()
}

/// Not a DNS message that mDNS permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an mDNS message")]
pub(super) struct Malformed;

/// Longest packet read, in bytes: RFC 6762, section 17, headers included.
pub(super) const LONGEST: usize = 9000;

/// Longest packet written, in bytes: fits an Ethernet frame with IPv6 and UDP headers, 1,452, and tunnels of less.
pub(super) const PACKET_BYTES: usize = 1400;

/// Bytes of TXT strings in a packet, their lengths included; the rest of [`PACKET_BYTES`] is for the other records.
const STRINGS_BYTES: usize = 1000;

/// Longest string of a TXT record: its length is one byte.
const STRING_BYTES: usize = 255;

/// How long what we tell holds: RFC 6762, section 10, for records that name a host.
pub(super) const TTL: Duration = Duration::from_secs(120);

/// The same for askers outside mDNS, in seconds: RFC 6762, section 6.7.
const LEGACY_TTL: u32 = 10;

/// Most peers taken out of a packet: an honest one names one.
const PEERS_PER_PACKET: usize = 32;

/// Most questions of a packet that are looked at: askers put a handful into one.
const QUESTIONS: usize = 16;

/// What a string that holds an address begins with.
const PREFIX: &str = "dnsaddr=";

/// Bytes of a message's head: RFC 1035, section 4.1.1.
const HEAD_BYTES: usize = 12;
/// Least bytes of a question: root name, type, class.
const QUESTION_BYTES: usize = 5;
/// Least bytes of a record: root name, type, class, time, length.
const RECORD_BYTES: usize = 11;

#[cfg(test)]
mod tests;
