use super::*;

const PEER: &str = "12D3KooWGCHJUu64zWvDNZnNXXhBGMGoDUFQG9bvDuXnGZMpGMfG";

fn peer(n: u16) -> PeerId {
    let [a, b] = n.to_be_bytes();
    PeerId::from_bytes(&[0, 2, a, b]).unwrap()
}

fn announcement(places: &[&str]) -> Announcement {
    let places = places.iter().map(|place| place.parse().unwrap()).collect();
    Announcement { label: "x".repeat(63), peer: PEER.parse().unwrap(), places }
}

/// A label as a name below the service.
fn instance(label: &str) -> Name {
    below(label, &service()).unwrap()
}

fn txt(name: &Name, ttl: u32, strings: &[&str]) -> Record {
    let strings = strings.iter().map(ToString::to_string).collect();
    Record::from_rdata(name.clone(), ttl, RData::TXT(TXT::new(strings)))
}

fn ptr(name: &Name, ttl: u32) -> Record {
    Record::from_rdata(service(), ttl, RData::PTR(PTR(name.clone())))
}

fn response(answers: Vec<Record>, additionals: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.insert_answers(answers);
    message.add_additionals(additionals);
    message.to_vec().unwrap()
}

fn told(bytes: &[u8]) -> Vec<Told> {
    match read(bytes) {
        Ok(Packet::Response(told)) => told,
        other => panic!("{other:?}"),
    }
}

fn asked(bytes: &[u8]) -> Query {
    match read(bytes) {
        Ok(Packet::Query(query)) => query,
        other => panic!("{other:?}"),
    }
}

/// One peer at 10.0.0.1, as the other implementations tell it.
fn dialects() -> Vec<(&'static str, Vec<u8>)> {
    let name = instance("abcdefghijklmnopqrstuvwxyz012345");
    let quic = format!("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}");
    let tcp = format!("dnsaddr=/ip4/10.0.0.1/tcp/4001/p2p/{PEER}");
    let web = format!("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/webtransport/p2p/{PEER}");
    let host = below("abcdefghijklmnopqrstuvwxyz012345", &domain()).unwrap();
    let mut js = vec![ptr(&name, 120)];
    js.extend([&tcp, &quic, &web].map(|text| txt(&name, 120, &[text])));
    // rust-libp2p 0.57: a name of one label, below nothing.
    let bare = Name::from_labels(["aBcdefghijklmnopqrstuvwxyz012345".as_bytes()]).unwrap();
    let rust = [&quic, &tcp].map(|text| txt(&bare, 360, &[text])).into();
    let go = vec![
        Record::from_rdata(name.clone(), 3200, RData::SRV(SRV::new(0, 0, 4001, host.clone()))),
        txt(&name, 3200, &[&tcp, &quic, &web]),
        Record::from_rdata(host, 120, RData::A(A::new(10, 0, 0, 1))),
    ];
    vec![
        ("js", response(js, vec![])),
        ("rust", response(vec![ptr(&bare, 360)], rust)),
        ("go", response(vec![ptr(&name, 3200)], go)),
        ("ours", announcement(&["10.0.0.1:4001"]).packets(TTL).remove(0)),
    ]
}

#[test]
fn every_dialect_is_understood() {
    for (who, bytes) in dialects() {
        let told = told(&bytes);
        assert_eq!(told.len(), 1, "{who}: {told:?}");
        assert_eq!(told[0].peer.to_string(), PEER, "{who}");
        assert_eq!(told[0].places, ["10.0.0.1:4001".parse().unwrap()], "{who}");
        assert!(told[0].ttl >= TTL, "{who}");
    }
}

#[test]
fn strings_that_name_a_place() {
    let at = |text: &str| format!("dnsaddr={text}/p2p/{PEER}");
    let rows: &[(String, Option<Option<&str>>)] = &[
        (at("/ip4/10.0.0.1/udp/4001/quic-v1"), Some(Some("10.0.0.1:4001"))),
        (at("/ip6/fe80::1/udp/4001/quic-v1"), Some(Some("[fe80::1]:4001"))),
        (at("/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1"), Some(Some("[fe80::1]:4001"))),
        (at("/ip4/10.0.0.1/udp/0/quic-v1"), Some(None)),
        (at("/ip4/10.0.0.1/udp/4001/quic"), Some(None)),
        (at("/ip4/10.0.0.1/udp/4001"), Some(None)),
        (at("/ip4/10.0.0.1/tcp/4001"), Some(None)),
        (at("/dns4/example.org/udp/4001/quic-v1"), Some(None)),
        (at(&format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}/p2p-circuit")), Some(None)),
        (at(""), Some(None)),
        ("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1".into(), None),
        (format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}"), None),
        (format!("DNSADDR=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}"), None),
        ("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/x".into(), None),
        ("dnsaddr=".into(), None),
        ("dnsaddr=/".into(), None),
        ("".into(), None),
    ];
    for (text, want) in rows {
        let got = place_of(text.as_bytes());
        let want = want.map(|place| (PEER.parse().unwrap(), place.map(|place| place.parse().unwrap())));
        assert_eq!(got, want, "{text}");
    }
    assert_eq!(place_of(b"dnsaddr=\xff"), None);
}

#[test]
fn addresses_there_and_back() {
    let rows = [
        ("10.0.0.1:4001", None, "/ip4/10.0.0.1/udp/4001/quic-v1"),
        ("[fd00::1]:4001", None, "/ip6/fd00::1/udp/4001/quic-v1"),
        ("[fe80::1%7]:4001", Some("eth7"), "/ip6zone/eth7/ip6/fe80::1/udp/4001/quic-v1"),
    ];
    for (place_text, zone, text) in rows {
        let (socket, address): (SocketAddr, Multiaddr) = (place_text.parse().unwrap(), text.parse().unwrap());
        assert_eq!(multiaddr(socket, zone), address);
        let without_scope = SocketAddr::new(socket.ip(), socket.port());
        assert_eq!(place(&address), Some(without_scope));
    }
}

#[test]
fn goodbyes() {
    let name = instance("abc");
    let quic = format!("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}");
    let ours = announcement(&["10.0.0.1:4001"]).packets(Duration::ZERO).remove(0);
    for bytes in [
        ours,
        response(vec![ptr(&name, 0)], vec![txt(&name, 0, &[&quic])]),
        response(vec![ptr(&name, 0)], vec![txt(&name, 120, &[&quic])]),
        response(vec![txt(&name, 0, &[&quic])], vec![]),
    ] {
        assert_eq!(told(&bytes)[0].ttl, Duration::ZERO);
    }
}

#[test]
fn other_services_and_classes_tell_nothing() {
    let quic = format!("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}");
    let mut chaos = txt(&instance("abc"), 120, &[&quic]);
    chaos.dns_class = DNSClass::CH;
    let other = Name::from_labels(["abc", "_http", "_tcp", "local"].map(str::as_bytes)).unwrap();
    let deeper = below("a", &instance("abc")).unwrap();
    for record in
        [chaos, txt(&other, 120, &[&quic]), txt(&service(), 120, &[&quic]), txt(&deeper, 1, &[&quic])]
    {
        assert_eq!(told(&response(vec![record], vec![])), []);
    }
}

#[test]
fn names_know_no_case() {
    let name = Name::from_labels(["ABC", "_P2P", "_udp", "Local"].map(str::as_bytes)).unwrap();
    let quic = format!("dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}");
    assert_eq!(told(&response(vec![txt(&name, 120, &[&quic])], vec![])).len(), 1);
}

#[test]
fn a_packet_full_of_peers_is_cut() {
    let strings: Vec<String> = (0..150)
        .map(|n| format!("dnsaddr=/ip4/10.0.0.1/udp/{}/quic-v1/p2p/{}", n + 1, peer(n).to_base58()))
        .collect();
    let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
    let bytes = response(vec![txt(&instance("abc"), 120, &strings)], vec![]);
    assert!(bytes.len() <= LONGEST, "{}", bytes.len());
    assert_eq!(told(&bytes).len(), PEERS_PER_PACKET);
}

#[test]
fn what_is_written_fits_and_is_read_again() {
    let places: Vec<String> = (0..32)
        .map(|n| match n % 2 {
            0 => format!("192.168.100.1{n:02}:50000"),
            _ => format!("[fd00:1111:2222:3333:4444:5555:6666:77{n:02}]:50000"),
        })
        .collect();
    for count in 0..=places.len() {
        let ours = announcement(&places[..count].iter().map(String::as_str).collect::<Vec<_>>());
        let packets = ours.packets(TTL);
        assert_eq!(packets.is_empty(), count == 0);
        let mut again = Vec::new();
        for packet in &packets {
            assert!(packet.len() <= PACKET_BYTES, "{} bytes", packet.len());
            again.extend(told(packet).remove(0).places);
        }
        assert_eq!(again, ours.places);
        assert!(packets.len() <= 5, "{} packets", packets.len());
    }
    // A scope is nobody else's business.
    let scoped = announcement(&["[fe80::1%3]:4001"]).packets(TTL).remove(0);
    assert_eq!(told(&scoped)[0].places, ["[fe80::1]:4001".parse().unwrap()]);
}

fn question(id: u16, questions: &[(&Name, RecordType, bool)], known: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    for (name, kind, unicast) in questions {
        let mut question = Question::query((*name).clone(), *kind);
        question.set_mdns_unicast_response(*unicast);
        message.add_query(question);
    }
    message.insert_answers(known);
    message.to_vec().unwrap()
}

#[test]
fn who_is_asked() {
    use RecordType as T;
    let (ours, other, host) = (instance("abc"), instance("abd"), below("abc", &domain()).unwrap());
    let (service, kinds) = (service(), kinds());
    let http = Name::from_labels(["_http", "_tcp", "local"].map(str::as_bytes)).unwrap();
    // What is asked, what is known, and whether it concerns us, is general, and wants a unicast answer.
    let rows = [
        (vec![(&service, T::PTR, false)], vec![], (true, true, false)),
        (vec![(&service, T::ANY, false)], vec![], (true, true, false)),
        (vec![(&service, T::PTR, true)], vec![], (true, true, true)),
        (vec![(&service, T::TXT, false)], vec![], (false, false, false)),
        (vec![(&http, T::PTR, false)], vec![], (false, false, false)),
        (vec![(&http, T::PTR, false), (&service, T::PTR, false)], vec![], (true, true, false)),
        (vec![(&ours, T::TXT, false)], vec![], (true, false, false)),
        (vec![(&ours, T::SRV, false)], vec![], (true, false, false)),
        (vec![(&other, T::TXT, false)], vec![], (false, false, false)),
        (vec![(&host, T::A, false)], vec![], (true, false, false)),
        (vec![(&host, T::TXT, false)], vec![], (false, false, false)),
        (vec![(&kinds, T::PTR, false)], vec![], (true, false, false)),
        (vec![(&service, T::PTR, false)], vec![ptr(&ours, 60)], (false, false, false)),
        (vec![(&service, T::PTR, false)], vec![ptr(&ours, 59)], (true, true, false)),
        (vec![(&service, T::PTR, false)], vec![ptr(&other, 120)], (true, false, false)),
        (vec![], vec![], (false, false, false)),
    ];
    for (row, (questions, known, want)) in rows.into_iter().enumerate() {
        let query = asked(&question(7, &questions, known));
        assert_eq!(
            (query.concerns("abc"), query.is_general(), query.wants_unicast()),
            want,
            "row {row}: {query:?}"
        );
    }
    assert!(asked(&query()).is_general(), "our own question");
    assert!(!asked(&question(7, &[(&service, T::PTR, false)], vec![])).asks_kinds());
    assert!(asked(&question(7, &[(&kinds, T::PTR, false)], vec![])).asks_kinds());
}

#[test]
fn a_reply_is_what_plain_dns_expects() {
    let bytes = question(4711, &[(&service(), RecordType::PTR, true)], vec![]);
    let places: Vec<String> = (1..30).map(|n| format!("10.0.0.{n}:4001")).collect();
    let ours = announcement(&places.iter().map(String::as_str).collect::<Vec<_>>());
    let reply = ours.reply(&asked(&bytes)).unwrap();
    assert!(reply.len() <= PACKET_BYTES);
    let message = Message::from_vec(&reply).unwrap();
    assert_eq!(message.metadata.id, 4711);
    assert!(message.metadata.authoritative);
    assert_eq!(message.queries.len(), 1);
    for record in message.all_sections() {
        assert!(record.ttl <= LEGACY_TTL && !record.mdns_cache_flush, "{record}");
    }
    // Rather nothing than a packet that is too long: the questions count too.
    let many: Vec<Name> = (0..15).map(|n| instance(&format!("{n}{}", "y".repeat(55)))).collect();
    let mut questions: Vec<_> = many.iter().map(|name| (name, RecordType::TXT, false)).collect();
    let service = service();
    questions.push((&service, RecordType::PTR, false));
    assert!(ours.reply(&asked(&question(1, &questions, vec![]))).is_none_or(|r| r.len() <= PACKET_BYTES));
}

#[test]
fn what_is_no_packet() {
    let good = query();
    let mut update = good.clone();
    update[2] |= 0x28;
    let mut failed = good.clone();
    failed[3] |= 3;
    let mut counts = good.clone();
    counts[6..12].fill(0xff);
    let mut questions = good.clone();
    questions[4..6].fill(0xff);
    // A name that points at itself.
    let mut looped = good[..12].to_vec();
    looped.extend([0xc0, 12, 0, 12, 0, 1]);
    let rows: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("a head cut", good[..11].to_vec()),
        ("a question cut", good[..good.len() - 1].to_vec()),
        ("an update", update),
        ("an error", failed),
        ("65,535 records", counts),
        ("65,535 questions", questions),
        ("a loop", looped),
        ("too long", vec![0; LONGEST + 1]),
    ];
    for (what, bytes) in rows {
        assert!(read(&bytes).is_err(), "{what}");
    }
}

/// Whatever is changed in a packet, it is read or refused, within bounds.
#[test]
fn mutations() {
    let mut corpus: Vec<Vec<u8>> = dialects().into_iter().map(|(_, bytes)| bytes).collect();
    corpus.push(query());
    corpus.push(kinds_answer());
    corpus.push(question(
        1,
        &[(&kinds(), RecordType::PTR, true), (&service(), RecordType::PTR, true)],
        vec![ptr(&instance("abc"), 120)],
    ));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    for round in 0..60_000 {
        let mut bytes = corpus[random(corpus.len())].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(6) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = [0, 0xff, 0xc0, 0x3f, 0x80, 12][random(6)],
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, u8::try_from(random(256)).unwrap()),
                4 => {
                    bytes.remove(at);
                    bytes.push(0);
                }
                _ => {
                    let other = &corpus[random(corpus.len())];
                    bytes.splice(at.., other[random(other.len())..].iter().copied());
                    bytes.push(0);
                }
            }
        }
        fuzz(&bytes);
        if let Ok(Packet::Response(told)) = read(&bytes) {
            assert!(told.len() <= PEERS_PER_PACKET, "round {round}");
        }
    }
}
