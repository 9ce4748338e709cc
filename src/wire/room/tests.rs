//! Events there and back, and all that a hostile member may send.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use super::*;
use crate::base::mutate::mutations;
use crate::base::{PackageUrl, PeerKey, Sha256, dag_cbor_cid, dag_pb_cid};
use crate::catalogue::{Entry, Facts, Root};

const HERE: Context<'_> = Context { room: "!room:example.org", sender: "@alice:example.org" };

/// A key pair that is made of one byte: its signatures are the same on every run.
struct Keys(Ed25519KeyPair);

impl Keys {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn key(&self) -> PeerKey {
        PeerKey::parse(&[&[8, 1, 18, 32], self.0.public_key().as_ref()].concat()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.sign(message).as_ref().to_vec())
    }
}

fn root(n: u8) -> Root {
    Root { hash: Sha256([n; 32]), entries: 2 }
}

fn advert(keys: &Keys) -> NodeAdvert {
    NodeAdvert {
        peer: keys.key().peer_id(),
        addresses: vec![
            "/ip4/198.51.100.7/udp/4001/quic-v1".into(),
            "/ip6/2001:db8::7/udp/4001/quic-v1".into(),
        ],
        name: "alice's laptop".into(),
        agent: "dpm/0.1.0".into(),
        catalogue: Some(root(1)),
        sequence: 7,
        time_ms: 1_790_000_000_000,
    }
}

fn written(keys: &Keys) -> String {
    advert(keys).write(&HERE, &keys.key(), |message| keys.sign(message)).unwrap()
}

fn entries(count: u64) -> Vec<Entry> {
    let entry = |n: u64| {
        let sha256 = Sha256::of(&n.to_le_bytes());
        let (package, version) = (format!("package_{}", n / 12), n / 12 % 40);
        let file = format!(
            "{package}-{version}.{}.0-cp3{}-cp3{0}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            n % 9,
            n % 12
        );
        Entry {
            purl: PackageUrl::of(
                "pypi",
                &package.replace('_', "-"),
                Some(&format!("{version}.{}.0", n % 9)),
                &[],
            )
            .unwrap(),
            file,
            size: 1_200_000 + 7919 * n,
            root: dag_pb_cid(Sha256::of(&sha256.0)),
            digests: vec![sha256.digest()],
            facts: Facts {
                core_metadata: Some(Sha256::of(&[&sha256.0[..], b"metadata"].concat()).digest()),
                requires_python: Some(">=3.9".into()),
                upload_time: Some(format!(
                    "2026-01-02T03:{:02}:{:02}.{:06}Z",
                    n % 60,
                    n % 59,
                    n * 7919 % 1_000_000
                )),
                ..Facts::default()
            },
            first_seen: None,
        }
    };
    (0..count).map(entry).collect()
}

fn packages(keys: &Keys, count: u64) -> Packages {
    let mut added = entries(count);
    let removed = added.split_off(added.len() / 10 * 9).into_iter().map(|e| (e.purl, e.file)).collect();
    Packages { peer: keys.key().peer_id(), root: root(1), sequence: 7, added, removed }
}

#[test]
fn a_node_there_and_back() {
    let keys = Keys::new(1);
    let text = written(&keys);
    let peer = keys.key().peer_id().to_string();
    assert_eq!(NodeAdvert::read(text.as_bytes(), &HERE, &peer).unwrap(), advert(&keys));
    let bare = NodeAdvert { addresses: vec![], name: String::new(), catalogue: None, ..advert(&keys) };
    let text = bare.write(&HERE, &keys.key(), |m| keys.sign(m)).unwrap();
    assert!(!text.contains("root"));
    assert_eq!(NodeAdvert::read(text.as_bytes(), &HERE, &peer), Ok(bare));
    assert_eq!(advert(&keys).write(&HERE, &keys.key(), |_| None), Err(RoomError::Unsigned));
    let advertised = advert(&keys);
    let (dial, refused) = advertised.dialable(Allow::Near);
    assert_eq!((dial.len(), refused.len()), (0, 2), "documentation's addresses lead nowhere");

    // A key of the other kind that IPFS nodes have.
    let rsa = RsaKeyPair::from_pkcs8(include_bytes!("../../../tests/fixtures/rsa-peer.pk8")).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
    let length = u16::try_from(der.as_ref().len()).unwrap();
    let mut protobuf = vec![8, 0, 18];
    crate::base::varint::put_varint(&mut protobuf, length.into());
    protobuf.extend_from_slice(der.as_ref());
    let key = PeerKey::parse(&protobuf).unwrap();
    let by_rsa = NodeAdvert { peer: key.peer_id(), ..advert(&keys) };
    let sign = |message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
        Some(signature)
    };
    let text = by_rsa.write(&HERE, &key, sign).unwrap();
    assert_eq!(NodeAdvert::read(text.as_bytes(), &HERE, &key.peer_id().to_string()), Ok(by_rsa));
}

#[track_caller]
fn refused(json: &str, want: &str) {
    let peer = Keys::new(1).key().peer_id().to_string();
    let said = NodeAdvert::read(json.as_bytes(), &HERE, &peer).expect_err(want).to_string();
    assert!(said.contains(want), "{said:?} does not say {want:?}");
}

#[test]
fn hostile_nodes() {
    let (keys, other) = (Keys::new(1), Keys::new(2));
    let good: Value = serde_json::from_str(&written(&keys)).unwrap();
    let with = |key: &str, value: Value| {
        let mut event = good.clone();
        event[key] = value;
        event.to_string()
    };
    let others = |f: &str| serde_json::from_str::<Value>(&written(&other)).unwrap()[f].clone();
    let signature = "does not fit this event, room and sender";
    let rows = [
        (with("signature", others("signature")), signature),
        (with("signature", json!("")), signature),
        (with("signature", json!("AAAA")), signature),
        (with("signature", json!("not base64!")), "no base64"),
        (with("signature", json!("A".repeat(9000))), "1024 are allowed"),
        (with("signature", Value::Null), "not as it should be"),
        (with("addresses", json!([])), signature),
        (with("addresses", json!(["/ip4/203.0.113.9/udp/1/quic-v1"])), signature),
        (with("addresses", json!(vec!["/ip4/1.1.1.1/udp/1/quic-v1"; 100])), "more than 16 addresses"),
        (with("addresses", json!(["x".repeat(257)])), "256 are allowed"),
        (with("addresses", json!(["a\u{1b}[2J"])), "control characters"),
        (with("addresses", json!([7])), "not as it should be"),
        (with("name", json!("Alice's laptop")), signature),
        (with("name", json!("x".repeat(65))), "64 are allowed"),
        (with("name", json!("\u{202e}gnp.exe")), "control characters"),
        (with("name", json!("two\nlines")), "control characters"),
        (with("agent", json!("dpm/9")), signature),
        (with("root", json!(root(2).cid().to_string())), signature),
        (with("root", Value::Null), "some, of no catalogue"),
        (with("root", json!("")), "the catalogue's root"),
        (with("root", json!("b".repeat(200))), "128 are allowed"),
        (with("root", json!(dag_pb_cid(Sha256([1; 32])).to_string())), "is no catalogue"),
        (with("entries", json!(3)), signature),
        (with("entries", json!(-1)), "not as it should be"),
        (with("entries", json!(2.0)), "not as it should be"),
        (with("entries", json!(1u64 << 53)), "an integer above 2^53"),
        (with("entries", json!(1u64 << 40)), "1099511627776 entries are stated"),
        (with("sequence", json!(8)), signature),
        (with("sequence", json!(u64::MAX)), "an integer above 2^53"),
        (with("sequence", json!("7")), "not as it should be"),
        (with("time", json!(0)), signature),
        (with("time", json!(1e300)), "not as it should be"),
        (with("peer", others("peer")), "names the peer"),
        (with("peer", json!("nobody")), "the peer id: it is none"),
        (with("peer", json!(dag_cbor_cid(Sha256([0; 32])).to_string())), "the peer id: it is none"),
        (with("key", others("key")), "and has the key of"),
        (with("key", json!("AAAA")), "not one of libp2p's"),
        (with("key", json!("A".repeat(4000))), "2048 are allowed"),
        (with("version", json!(2)), "version Some(2), this dpm reads 1"),
        (with("version", Value::Null), "version None"),
        (written(&other), "has another state key"),
        ("{}".into(), "withdrawn"),
        (" {} ".into(), "withdrawn"),
        ("[]".into(), "not as it should be"),
        (String::new(), "not as it should be"),
        ("null".into(), "not as it should be"),
        (r#"{"version":1}"#.into(), "missing field"),
        (written(&keys).replacen('{', r#"{"sequence":9,"#, 1), "duplicate field"),
        (written(&keys).replacen('{', r#"{"version":1,"#, 1), "duplicate field"),
        (format!("{}{}", "[".repeat(1_000), "]".repeat(10_000)), "not as it should be"),
        (
            format!(r#"{{"version":1,"x":{}0{}}}"#, "[".repeat(1_000), "]".repeat(10_000)),
            "not as it should be",
        ),
        (with("more", json!("x".repeat(70_000))), "16384 are allowed"),
    ];
    for (json, want) in rows {
        refused(&json, want);
    }
    let peer = keys.key().peer_id().to_string();
    assert!(
        NodeAdvert::read(with("later", json!({"a": 1})).as_bytes(), &HERE, &peer).is_ok(),
        "unknown keys"
    );
    for elsewhere in [
        Context { room: "!other:example.org", ..HERE },
        Context { sender: "@mallory:example.org", ..HERE },
        // What a mere joining of the texts would not tell apart.
        Context { room: "!room:example.org@", sender: "alice:example.org" },
    ] {
        let said = NodeAdvert::read(written(&keys).as_bytes(), &elsewhere, &peer);
        assert_eq!(said, Err(RoomError::Signature(peer.clone())), "{elsewhere:?}");
    }
    let long = Context { sender: &"@".repeat(256), ..HERE };
    assert!(matches!(
        NodeAdvert::read(written(&keys).as_bytes(), &long, &peer),
        Err(RoomError::Field { .. })
    ));
    // Nor is any of it written.
    let wide = NodeAdvert { addresses: vec![String::new(); 17], ..advert(&keys) };
    assert!(wide.write(&HERE, &keys.key(), |m| keys.sign(m)).is_err());
    let loud = NodeAdvert { name: "\n".into(), ..advert(&keys) };
    assert!(loud.write(&HERE, &keys.key(), |m| keys.sign(m)).is_err());
}

#[test]
fn what_was_seen() {
    let keys = Keys::new(1);
    let mut seen = Seen::default();
    let first = advert(&keys);
    let later = |sequence, name: &str| NodeAdvert { sequence, name: name.into(), ..first.clone() };
    assert_eq!(seen.judge(&first, &HERE), Ok(Verdict::News));
    assert_eq!(seen.judge(&first, &HERE), Ok(Verdict::Same));
    let peer = first.peer;
    assert_eq!(seen.judge(&later(7, "other"), &HERE), Err(SeenError::Twice { peer, sequence: 7 }));
    assert_eq!(seen.judge(&later(6, "a"), &HERE), Err(SeenError::Back { peer, had: 7, got: 6 }));
    assert_eq!(seen.judge(&later(9, "a"), &HERE), Ok(Verdict::News));
    assert_eq!(seen.judge(&first, &HERE), Err(SeenError::Back { peer, had: 9, got: 7 }), "a replay");
    assert!(
        seen.is_old(&peer, 8) && !seen.is_old(&peer, 9) && !seen.is_old(&Keys::new(2).key().peer_id(), 0)
    );
    // Moved to another account: signed for it, and newer.
    let bob = Context { sender: "@bob:example.org", ..HERE };
    assert_eq!(seen.judge(&later(9, "a"), &bob), Err(SeenError::Twice { peer, sequence: 9 }));
    assert_eq!(seen.judge(&later(10, "a"), &bob), Ok(Verdict::News));
    let mut again = Seen::default();
    seen.marks().for_each(|(peer, mark)| again.remember(*peer, mark.clone()));
    assert_eq!(again, seen);
    assert_eq!(again.judge(&first, &HERE), Err(SeenError::Back { peer, had: 10, got: 7 }), "after a restart");
    for n in 0..=MOST_NODES {
        let random = NodeAdvert { peer: crate::base::PeerId::random(), ..first.clone() };
        let full = n >= MOST_NODES - 1;
        assert_eq!(seen.judge(&random, &HERE).is_err(), full, "{n}");
    }
    assert_eq!(seen.judge(&later(11, "a"), &HERE), Ok(Verdict::News), "those that are known go on");
}

#[test]
fn packages_there_and_back_in_as_many_events_as_it_takes() {
    let keys = Keys::new(1);
    let all = packages(&keys, 3000);
    let contents = all.write(&HERE, &keys.key(), |m| keys.sign(m)).unwrap();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for content in &contents {
        assert!(content.len() <= MOST_WRITTEN_BYTES, "{}", content.len());
        let part = Packages::read(content.as_bytes(), &HERE).unwrap();
        assert_eq!((part.peer, part.root, part.sequence), (all.peer, all.root, all.sequence));
        println!("{} bytes: {} added, {} removed", content.len(), part.added.len(), part.removed.len());
        added.extend(part.added);
        removed.extend(part.removed);
    }
    assert_eq!((added, removed), (all.added.clone(), all.removed.clone()));
    assert!((2..20).contains(&contents.len()), "{}", contents.len());
    let none = Packages { added: vec![], removed: vec![], ..all };
    assert_eq!(none.write(&HERE, &keys.key(), |m| keys.sign(m)), Ok(vec![]));
}

/// Zlib of zeros, or of what `write` writes.
fn packed(write: impl FnOnce(&mut crate::base::cbor::CborWriter)) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = crate::base::cbor::CborWriter::default();
    write(&mut out);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&out.0).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn hostile_packages() {
    let keys = Keys::new(1);
    let few = packages(&keys, 20);
    let text = few.write(&HERE, &keys.key(), |m| keys.sign(m)).unwrap().remove(0);
    let good: Value = serde_json::from_str(&text).unwrap();
    // Signed all the same: the author lies.
    let with = |packed: Vec<u8>| {
        let mut message = super::sign::message("dpm-room-packages-v1", &HERE, &few.peer, 4);
        message.uint(4).bytes(&few.root.cid().to_bytes()).uint(5).uint(2).uint(6).uint(7);
        message.uint(7).bytes(&Sha256::of(&packed).0);
        let mut event = good.clone();
        event["packages"] = json!(super::sign::pack(&packed));
        event["signature"] = json!(super::sign::pack(&keys.sign(&message.0).unwrap()));
        event.to_string()
    };
    let mut unsigned = good.clone();
    unsigned["packages"] = json!("AAAA");
    let mut numbered = good.clone();
    numbered["sequence"] = json!(8);
    let item = |out: &mut crate::base::cbor::CborWriter| {
        out.array(2).text("pkg:pypi/a@1").text("a");
    };
    let rows = [
        (unsigned.to_string(), "does not fit this event"),
        (numbered.to_string(), "does not fit this event"),
        (with(b"AAAA".to_vec()), "not zlib"),
        (with(vec![]), "not zlib"),
        (with(packed(|out| out.0 = vec![0; 20 << 20])), "1048576 are allowed"),
        (with(packed(|out| out.0 = vec![0x80, 0])), "a map is missing"),
        (
            with(packed(|out| {
                out.map(1).text("a").array(0).uint(1);
            })),
            "bytes follow",
        ),
        (
            with(packed(|out| {
                out.map(2).text("r").array(0).text("a").array(0);
            })),
            "out of order",
        ),
        (
            with(packed(|out| {
                out.map(1).text("a").array(1).map(0);
            })),
            "no root (r)",
        ),
        (
            with(packed(|out| {
                out.map(1).text("a").array(3000).raw(&[0; 3000]);
            })),
            "more than 2048 entries",
        ),
        (
            with(packed(|out| {
                out.map(1).text("r").array(1).array(1).text("a");
            })),
            "not a URL and a file",
        ),
        (
            with(packed(|out| {
                out.map(1).text("r").array(1).array(2).text("a").text("b");
            })),
            "begins with pkg:",
        ),
        (
            with(packed(|out| {
                out.map(1).text("r").array(2049);
                (0..2049).for_each(|_| item(out));
            })),
            "more than 2048",
        ),
    ];
    for (json, want) in rows {
        let said = Packages::read(json.as_bytes(), &HERE).expect_err(want).to_string();
        assert!(said.contains(want), "{said:?} does not say {want:?}");
    }
    let later = with(packed(|out| {
        out.map(2).text("a").array(0).text("z").null();
    }));
    assert!(Packages::read(later.as_bytes(), &HERE).is_ok_and(|p| p.added.is_empty()));
}

#[test]
fn index_notes() {
    let keys = Keys::new(1);
    let purl = |text: &str| PackageUrl::parse(text).unwrap();
    let note = IndexNote {
        peer: keys.key().peer_id(),
        indexes: vec![(purl("pkg:pypi/six"), r#"W/"abc""#.into()), (purl("pkg:npm/%40a/b"), String::new())],
        time_ms: 1_790_000_000_000,
    };
    let write = |note: &IndexNote| note.write(&HERE, &keys.key(), |m| keys.sign(m));
    let text = write(&note).unwrap();
    assert_eq!(IndexNote::read(text.as_bytes(), &HERE), Ok(note.clone()));
    let good: Value = serde_json::from_str(&text).unwrap();
    let with = |indexes: Value| {
        let mut event = good.clone();
        event["indexes"] = indexes;
        event.to_string()
    };
    for (json, want) in [
        (with(json!([])), "does not fit"),
        (with(json!([["pkg:pypi/six", "other"]])), "does not fit"),
        (with(json!(vec![["pkg:pypi/six", ""]; 257])), "more than 256 indexes"),
        (with(json!([["six", ""]])), "begins with pkg:"),
        (with(json!([["pkg:pypi/six@1", ""]])), "it is of no one version"),
        (with(json!([["pkg:pypi/six", "x".repeat(129)]])), "128 are allowed"),
        (with(json!([["pkg:pypi/six"]])), "not as it should be"),
        (with(json!([["pkg:pypi/six", "", ""]])), "not as it should be"),
    ] {
        let said = IndexNote::read(json.as_bytes(), &HERE).expect_err(want).to_string();
        assert!(said.contains(want), "{said:?} does not say {want:?}");
    }
    let versioned = IndexNote { indexes: vec![(purl("pkg:pypi/six@1"), String::new())], ..note.clone() };
    assert!(write(&versioned).is_err());
    let many = IndexNote { indexes: vec![note.indexes[0].clone(); 257], ..note };
    assert!(write(&many).is_err());
}

#[test]
fn nothing_panics() {
    let keys = Keys::new(1);
    let peer = keys.key().peer_id().to_string();
    let node = written(&keys);
    let news = packages(&keys, 30).write(&HERE, &keys.key(), |m| keys.sign(m)).unwrap().remove(0);
    let note = IndexNote { peer: keys.key().peer_id(), indexes: vec![], time_ms: 1 };
    let note = note.write(&HERE, &keys.key(), |m| keys.sign(m)).unwrap();
    let scope = scope_parts(&[Pattern::parse("pkg:pypi/a*").unwrap()]).unwrap().remove(0);
    let good = advert(&keys);
    mutations(&[node.as_bytes(), news.as_bytes(), note.as_bytes(), scope.as_bytes()], 2000, |bytes| {
        // What is changed and still believed says the same: only keys that are not signed can be others.
        if let Ok(read) = NodeAdvert::read(bytes, &HERE, &peer) {
            assert_eq!(read, good);
        }
        let _ = Packages::read(bytes, &HERE);
        let _ = IndexNote::read(bytes, &HERE);
        let _ = Scope::default().add(bytes);
    });
}

/// `ROOMS.md` is what others read: its examples are made here, and its test vectors are ours. `DPM_WRITE_SEEDS=1` writes
/// them anew.
#[test]
fn the_specification_says_what_is_written() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ROOMS.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let keys = Keys::new(1);
    let sign = |message: &[u8]| keys.sign(message);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();

    let [one, two] =
        [("six", "1.17.0", "six-1.17.0-py2.py3-none-any.whl"), ("idna", "3.10", "idna-3.10.tar.gz")].map(
            |(name, version, file)| {
                let sha256 = Sha256::of(file.as_bytes());
                Entry {
                    purl: PackageUrl::of("pypi", name, Some(version), &[]).unwrap(),
                    file: file.into(),
                    size: 11_050,
                    root: crate::base::raw_cid(sha256),
                    digests: vec![sha256.digest()],
                    facts: Facts { requires_python: Some(">=3.6".into()), ..Facts::default() },
                    first_seen: None,
                }
            },
        );
    let many = |count: u64| {
        (1..=count).map(|n| {
            let sha256 = Sha256::of(n.to_string().as_bytes());
            Entry {
                purl: PackageUrl::of("pypi", &format!("package-{}", n % 100), Some(&n.to_string()), &[])
                    .unwrap(),
                file: format!("package-{n}.zip"),
                size: n,
                root: crate::base::raw_cid(sha256),
                digests: vec![sha256.digest()],
                facts: Facts::default(),
                first_seen: None,
            }
        })
    };
    let mut blocks = Vec::new();
    let mut catalogue_of = |entries: Vec<Entry>| {
        blocks.clear();
        let root = crate::catalogue::build(entries, &mut |cid, block| blocks.push((cid, block))).unwrap();
        (root, blocks.len(), blocks.last().unwrap().1.clone())
    };
    let (_, _, leaf) = catalogue_of(vec![one.clone()]);
    let (pair, _, _) = catalogue_of(vec![one.clone(), two.clone()]);
    let mut vectors = String::new();
    let sets = [
        ("no entries", vec![]),
        ("`six`", vec![one.clone()]),
        ("`six` and `idna`", vec![one.clone(), two.clone()]),
    ];
    let sets = sets
        .into_iter()
        .map(|(name, set)| (name.to_owned(), set))
        .chain([32, 33, 1000, 5000].map(|n| (format!("the {n} entries"), many(n).collect())));
    for (name, set) in sets {
        let (root, count, _) = catalogue_of(set);
        vectors.push_str(&format!("| {name} | {count} | `{}` |\n", root.cid()));
    }

    let advert = NodeAdvert { catalogue: Some(pair), ..advert(&keys) };
    let packages = Packages {
        peer: advert.peer,
        root: pair,
        sequence: 7,
        added: vec![two.clone()],
        removed: vec![(one.purl.clone(), one.file.clone())],
    };
    let note = IndexNote {
        peer: advert.peer,
        indexes: vec![(one.purl.package(), r#"W/"5f3a""#.into())],
        time_ms: advert.time_ms,
    };
    let patterns = [
        "pkg:pypi/six@1.17.0",
        "pkg:pypi/idna",
        "pkg:npm/%40corp/*",
        "pkg:oci/app?repository_url=ghcr.io/corp/app",
    ];
    let patterns = patterns.map(|text| Pattern::parse(text).unwrap());
    let node = advert.write(&HERE, &keys.key(), sign).unwrap();
    let said = [
        ("node", node.clone()),
        ("packages", packages.write(&HERE, &keys.key(), sign).unwrap().remove(0)),
        ("index", note.write(&HERE, &keys.key(), sign).unwrap()),
        ("scope", scope_parts(&patterns).unwrap().remove(0)),
        ("message", hex(&advert.message(&HERE).0)),
        ("leaf", hex(&leaf)),
        ("vectors", format!("| set | blocks | root |\n|---|--:|---|\n{}", vectors.trim_end())),
    ];
    for (name, now) in said {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = text.find(&begin).unwrap_or_else(|| panic!("no {name}")) + begin.len();
        let to = from + text[from..].find(&end).unwrap_or_else(|| panic!("no end of {name}"));
        let fence = if name == "vectors" { ["", ""] } else { ["```\n", "```\n"] };
        let want = format!("{}{now}\n{}", fence[0], fence[1]);
        if std::env::var_os("DPM_WRITE_SEEDS").is_some() {
            text.replace_range(from..to, &want);
        } else {
            assert_eq!(&text[from..to], want, "{name}");
        }
    }
    if std::env::var_os("DPM_WRITE_SEEDS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert!(NodeAdvert::read(node.as_bytes(), &HERE, &advert.peer.to_string()).is_ok());
}
