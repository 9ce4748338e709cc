use super::*;
use crate::base::mutate::mutations;
use crate::base::{Algorithm, Hasher, PeerId, dag_pb_cid, raw_cid};
use crate::wire::FrameReader;

/// One of each message: a word for it, and its frame in hex.
const FIXTURE: &str = include_str!("../../../tests/fixtures/near-v1.cbor");

/// Any message, read and written again.
#[derive(Debug, PartialEq, Eq)]
enum Any {
    Open(Open),
    Offers(Offers),
    News(News),
    Ask(Ask),
    Tell(Tell),
    Held(Held),
}

impl Any {
    fn decode(word: &str, bytes: &[u8]) -> Result<Self, WireError> {
        Ok(match word.split_once('-').expect("a kind and a word").0 {
            "open" => Self::Open(Open::decode(bytes)?),
            "offers" => Self::Offers(Offers::decode(bytes)?),
            "news" => Self::News(News::decode(bytes)?),
            "ask" => Self::Ask(Ask::decode(bytes)?),
            "tell" => Self::Tell(Tell::decode(bytes)?),
            "held" => Self::Held(Held::decode(bytes)?),
            kind => panic!("the fixture has a {kind}"),
        })
    }

    fn frame(&self) -> Vec<u8> {
        match self {
            Self::Open(message) => message.frame(),
            Self::Offers(message) => message.frame(),
            Self::News(message) => message.frame(),
            Self::Ask(message) => message.frame(),
            Self::Tell(message) => message.frame(),
            Self::Held(message) => message.frame(),
        }
    }
}

fn digest(algorithm: Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(b"demo");
    hasher.finish()
}

fn sha(n: u8) -> Sha256 {
    Sha256::of(&[n])
}

fn one_of_each() -> Vec<(&'static str, Any)> {
    // The example of libp2p's "Peer Ids and Keys" for Ed25519.
    let peer: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
    let news = News { sequence: 7, reset: true, added: vec![sha(1), sha(2)], removed: vec![sha(3)] };
    let offers = vec![
        Offer::Nothing,
        Offer::Whole { size: 11, root: raw_cid(sha(4)), root_block: None },
        Offer::Whole {
            size: 70 << 20,
            root: dag_pb_cid(sha(5)),
            root_block: Some(Bytes::from_static(b"a root block")),
        },
        Offer::Flying {
            size: Some(300),
            ready: 200,
            of: Some("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap()),
        },
        Offer::Flying { size: None, ready: 0, of: None },
        Offer::Claimed { first: true },
    ];
    vec![
        ("open-ask", Any::Open(Open::Ask { digests: Algorithm::ALL.map(digest).to_vec(), claim: true })),
        ("open-take", Any::Open(Open::Take { digest: digest(Algorithm::Sha256) })),
        ("open-news", Any::Open(Open::News(news.clone()))),
        ("offers-all", Any::Offers(Offers { offers })),
        ("news-more", Any::News(News { sequence: 8, reset: false, ..news })),
        ("ask-want", Any::Ask(Ask::Want { first: 3, count: 40, insist: true })),
        ("ask-cancel", Any::Ask(Ask::Cancel { first: 65_535, count: 1 })),
        ("tell-head", Any::Tell(Tell::Head { size: Some(1 << 36), root: Some(raw_cid(sha(6))) })),
        ("tell-nothing", Any::Tell(Tell::Head { size: None, root: None })),
        ("tell-leaves", Any::Tell(Tell::Leaves { first: 1000, hashes: vec![sha(7), sha(8)] })),
        ("tell-have", Any::Tell(Tell::Have { first: 0, count: 65_536 })),
        ("tell-chunk", Any::Tell(Tell::Chunk { n: 5, length: 1 << 20 })),
        ("tell-elsewhere", Any::Tell(Tell::Elsewhere { n: 6, peer })),
        ("tell-gone", Any::Tell(Tell::Gone { reason: Tell::FAILED })),
        ("open-blocks", Any::Open(Open::Blocks { hashes: vec![sha(9), sha(10)] })),
        ("held-nothing", Any::Held(Held::Nothing)),
        ("held-block", Any::Held(Held::Block { length: 160 << 10 })),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn content(frame: &[u8]) -> Bytes {
    let mut reader = FrameReader::new(FRAME_BYTES);
    reader.push(frame);
    let content = reader.next_frame().expect("a frame").expect("all of it");
    assert!(reader.is_empty());
    content
}

#[test]
fn the_fixture_is_read_and_written_as_it_is() {
    let lines: Vec<(&str, &str)> = FIXTURE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("a word and hex"))
        .collect();
    let now: String = one_of_each().iter().map(|(w, m)| format!("{w} {}\n", hex(&m.frame()))).collect();
    assert_eq!(lines.len(), one_of_each().len(), "\n{now}");
    for ((word, hex), (name, message)) in lines.into_iter().zip(one_of_each()) {
        let frame = unhex(hex);
        assert_eq!(word, name);
        assert_eq!(Any::decode(word, &content(&frame)), Ok(message), "{word}");
        assert_eq!(Any::decode(word, &content(&frame)).unwrap().frame(), frame, "{word}");
    }
}

#[test]
fn what_a_later_version_says() {
    let cases: [(&str, &str, Any); 7] = [
        // [99, {0: [1, [2]]}]
        ("an unknown opening", "open-", Any::Open(Open::Unknown(99))),
        ("an unknown request", "ask-", Any::Ask(Ask::Unknown(99))),
        ("an unknown reply", "tell-", Any::Tell(Tell::Unknown(99))),
        ("something unknown that is held", "held-", Any::Held(Held::Unknown(99))),
        ("an unknown key", "ask-", Any::Ask(Ask::Cancel { first: 1, count: 2 })),
        ("an unknown offer", "offers-", {
            Any::Offers(Offers {
                offers: vec![Offer::Claimed { first: true }, Offer::Unknown(99), Offer::Nothing],
            })
        }),
        ("an unknown key in an answer", "offers-", Any::Offers(Offers::default())),
    ];
    let bytes = [
        "821863a10082018102",
        "821863a10082018102",
        "821863a10082018102",
        "821863a10082018102",
        // [1, {0: 1, 9: {1: "x"}, 1: 2}]
        "8201a3000109a10161780102",
        // {0: [[3, {0: true}], [99, {0: [1, [2]]}], [0, {}]]}
        "a100838203a100f5821863a100820181028200a0",
        // {7: [1, 2], 0: []}
        "a20782010200 80",
    ];
    for ((name, kind, want), bytes) in cases.into_iter().zip(bytes) {
        assert_eq!(Any::decode(kind, &unhex(&bytes.replace(' ', ""))), Ok(want), "{name}");
    }
    // Handed on by mistake it is still harmless.
    assert_eq!(Ask::decode(&content(&Ask::Unknown(99).frame())), Ok(Ask::Unknown(99)));
}

#[test]
fn at_a_limit_and_beyond() {
    let ask = |n| Open::Ask { digests: vec![digest(Algorithm::Sha512); n], claim: false };
    assert_eq!(Open::decode(&content(&ask(DIGESTS).frame())), Ok(ask(DIGESTS)));
    let many = |what, limit| WireError::TooMany { what, limit };
    assert_eq!(
        Open::decode(&content(&ask(DIGESTS + 1).frame())),
        Err(many("digests in a question", DIGESTS))
    );

    let offers = |n| Offers { offers: vec![Offer::Nothing; n] };
    assert_eq!(Offers::decode(&content(&offers(DIGESTS).frame())), Ok(offers(DIGESTS)));
    let answer = Offers::decode(&content(&offers(DIGESTS + 1).frame()));
    assert_eq!(answer.unwrap_err(), WireError::TooMany { what: "offers in an answer", limit: DIGESTS });

    let news = |added, removed| News {
        added: vec![sha(1); added],
        removed: vec![sha(2); removed],
        ..News::default()
    };
    assert_eq!(News::decode(&content(&news(NEWS - 1, 1).frame())), Ok(news(NEWS - 1, 1)));
    for (added, removed) in [(NEWS + 1, 0), (NEWS, 1), (0, NEWS + 1)] {
        let want = WireError::TooMany { what: "entries in news", limit: NEWS };
        let news = news(added, removed);
        assert_eq!(News::decode(&content(&news.frame())), Err(want.clone()));
        assert_eq!(Open::decode(&content(&Open::News(news).frame())), Err(want));
    }

    let blocks = |n| Open::Blocks { hashes: vec![sha(1); n] };
    assert_eq!(Open::decode(&content(&blocks(BLOCKS).frame())), Ok(blocks(BLOCKS)));
    let beyond = Open::decode(&content(&blocks(BLOCKS + 1).frame()));
    assert_eq!(beyond, Err(many("blocks in a question", BLOCKS)));
    let held = |length| Held::Block { length };
    assert_eq!(Held::decode(&content(&held(163_840).frame())), Ok(held(163_840)));
    let too_long = WireError::TooLong { what: "a catalogue's block", bytes: 163_841, limit: 163_840 };
    assert_eq!(Held::decode(&content(&held(163_841).frame())), Err(too_long));

    let leaves = |first, n| Tell::Leaves { first, hashes: vec![sha(1); n] };
    let beyond = WireError::Field { what: "a range of chunks", why: "beyond the largest artifact" };
    let cases = [
        (leaves(0, LEAVES), None),
        (leaves(0, LEAVES + 1), Some(many("hashes of leaves", LEAVES))),
        (leaves(CHUNKS - 1, 1), None),
        (leaves(CHUNKS, 1), Some(beyond.clone())),
        (Tell::Have { first: 0, count: CHUNKS }, None),
        (Tell::Have { first: 1, count: CHUNKS }, Some(beyond.clone())),
        (Tell::Have { first: u32::MAX, count: u32::MAX }, Some(beyond.clone())),
        (Tell::Chunk { n: CHUNKS - 1, length: 1 << 20 }, None),
        (Tell::Chunk { n: CHUNKS, length: 1 }, Some(beyond.clone())),
        (
            Tell::Chunk { n: 0, length: (1 << 20) + 1 },
            Some(WireError::TooLong { what: "a chunk", bytes: (1 << 20) + 1, limit: 1 << 20 }),
        ),
    ];
    for (tell, want) in cases {
        let got = Tell::decode(&content(&tell.frame()));
        assert_eq!(got, want.map_or_else(|| Ok(tell.clone()), Err), "{tell:?}");
    }
    let want = Ask::Want { first: 2, count: u32::MAX, insist: false };
    assert!(Ask::decode(&content(&want.frame())).is_err());
    let too_long = WireError::TooLong { what: "a reply", bytes: 131_073, limit: 131_072 };
    assert_eq!(Tell::decode(&vec![0; FRAME_BYTES + 1]), Err(too_long));
}

#[test]
fn root_blocks_stay_out_where_there_is_no_room() {
    let whole = |bytes: usize| Offer::Whole {
        size: u64::MAX,
        root: Cid::new_v1(u64::MAX, *raw_cid(sha(1)).hash()),
        root_block: Some(vec![7; bytes].into()),
    };
    let offers = Offers { offers: (0..DIGESTS).map(|_| whole(56 << 10)).collect() };
    let read = Offers::decode(&content(&offers.frame())).expect("it fits into a frame");
    let with = |o: &&Offer| matches!(o, Offer::Whole { root_block: Some(_), .. });
    assert_eq!(read.offers.len(), DIGESTS);
    assert_eq!(read.offers.iter().filter(with).count(), 2);
    let small = Offers { offers: vec![whole(56 << 10), whole(80 << 10), whole(60_000)] };
    let read = Offers::decode(&content(&small.frame())).unwrap();
    assert_eq!(read.offers.iter().map(|o| with(&o)).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn what_is_no_message() {
    let cases: [(&str, &str, &str); 12] = [
        ("open-", "", "end of input"),
        ("open-", "80", "2-element array"),
        ("open-", "8201a0", "missing"),
        ("open-", "8201a10041ff", "no multihash"),
        ("open-", "8201a10043130100", "its length"),
        ("open-", "8201a100430a0100", "no multihash of a known function"),
        ("ask-", "8201a20001010200", "bytes follow it"),
        ("ask-", "8201a2000101 1b0000000100000000", "u32"),
        ("tell-", "8201a200010142aabb", "32 bytes"),
        ("tell-", "8204a20001014100", "no peer id"),
        ("tell-", "8200a101430155", "end of input"),
        ("offers-", "a1009f", "unknown length"),
    ];
    for (kind, bytes, why) in cases {
        let error = Any::decode(kind, &unhex(&bytes.replace(' ', ""))).expect_err(bytes).to_string();
        assert!(error.contains(why), "{bytes}: {error}");
    }
}

#[test]
fn damaged_messages_are_read_or_refused_and_what_is_read_can_be_written() {
    let mut read = 0;
    for (word, message) in one_of_each() {
        let whole = content(&message.frame());
        mutations(&[&whole], 5_000, |bytes| {
            let Ok(message) = Any::decode(word, bytes) else { return };
            read += 1;
            assert_eq!(Any::decode(word, &content(&message.frame())), Ok(message), "{word} {}", hex(bytes));
        });
    }
    assert!(read > 1000, "mutations that only make nonsense test little: {read}");
}
