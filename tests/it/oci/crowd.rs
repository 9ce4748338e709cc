//! Many at once, and an end in the middle: one layer is one fetch, and what is half there is not there.

use std::sync::Arc;

use dpm::base::Sha256;

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry};
use super::through::Front;
use super::tools::Tools;
use crate::clients::process::Home;
use crate::support::{Latch, Node, Process, Raw, Upstream, attempt, get, process, request, until};

/// Larger than what is held back, and than one chunk.
const LARGE: usize = (3 << 20) + 12_345;

/// Nobody listens there.
const NO_INDEX: &str = "http://127.0.0.1:1/simple/";

/// Sends a layer up to `first`, and the rest when the latch is open.
fn in_two_goes(server: &Upstream, path: &str, bytes: &[u8], first: usize) -> Latch {
    let (latch, bytes) = (Latch::default(), bytes.to_vec());
    let gate = latch.clone();
    server.route(path, move |asked, out| {
        use std::io::Write;
        let (size, from) = (bytes.len(), asked.range(bytes.len()).map_or(0, |(from, _)| from));
        match from {
            0 => write!(out, "HTTP/1.1 200 X\r\ncontent-length: {size}\r\n\r\n")?,
            _ => write!(
                out,
                "HTTP/1.1 206 X\r\ncontent-range: bytes {from}-{}/{size}\r\ncontent-length: {}\r\n\r\n",
                size - 1,
                size - from
            )?,
        }
        if asked.method == "HEAD" {
            return Ok(());
        }
        let middle = first.max(from);
        out.write_all(&bytes[from..middle])?;
        // Slowly, until the test lets it go on: an upstream that stands still is given up.
        for piece in bytes[middle..].chunks(16 << 10) {
            if !gate.is_open() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            out.write_all(piece)?;
        }
        Ok(())
    });
    latch
}

#[test]
fn one_fetch_for_all() {
    let registry = FakeRegistry::start();
    let image = Image::new(1, &[LARGE]);
    registry.put("team/app", "1", &image);
    let front = Front::of(&registry.host());
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    let latch = in_two_goes(&registry.server, &path, bytes, 1 << 20);
    front.tag("team/app", "1", "MISS", &image);
    let (url, bytes) = (front.node.url(&path), Arc::new(bytes.to_vec()));
    let whole: Vec<_> = (0..32)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || get(&url))
        })
        .collect();
    until("it comes", || registry.server.hits(&path) > 0);
    // Parts of it while it comes: of what is here, of what is not yet, and of the very end.
    let parts: Vec<_> =
        [(0, 9), (500_000, 600_000), (1 << 20, (2 << 20) + 1), (bytes.len() - 10, bytes.len() - 1)]
            .into_iter()
            .map(|(first, last)| {
                let (url, bytes) = (url.clone(), bytes.clone());
                std::thread::spawn(move || {
                    let answer = request("GET", &url, &[("range", &format!("bytes={first}-{last}"))]);
                    assert_eq!(answer.status, 206);
                    let told = format!("bytes {first}-{last}/{}", bytes.len());
                    assert_eq!(answer.header("content-range"), told);
                    assert!(answer.body == bytes[first..=last], "{told}");
                })
            })
            .collect();
    // Somebody reads, and goes.
    let mut reader = Raw::connect(front.node.daemon().address()).get(&path);
    reader.read_body(100_000);
    assert!(reader.body() == &bytes[..reader.body().len()]);
    drop(reader);
    latch.open();
    for client in whole {
        let answer = client.join().unwrap();
        assert!(answer.status == 200 && answer.body == *bytes);
    }
    parts.into_iter().for_each(|part| part.join().unwrap());
    assert_eq!(registry.server.hits(&path), 1);
    // As many who ask what a tag means, at first sight.
    let other = Image::new(2, &[3000]);
    registry.put("team/app", "2", &other);
    let tag = manifest_path("team/app", "2");
    let url = front.node.url(&tag);
    let all: Vec<_> = (0..32)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || get(&url))
        })
        .collect();
    for client in all {
        let answer = client.join().unwrap();
        assert!(answer.status == 200 && answer.body == other.root_bytes());
    }
    assert_eq!(registry.server.hits(&tag), 1);
    assert_eq!(registry.server.hits(&manifest_path("team/app", &other.root.digest)), 0);
}

/// Machines of one office that pull one image at the same time, with real clients and from a real registry.
#[test]
fn one_fetch_for_an_office() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000, LARGE]);
    origin.push(&tools, &image, "team/app:1");
    let configured = super::through::registry(&origin.host());
    let mut nodes = Node::village_with(3, NO_INDEX, |_, config, _| config.oci = vec![configured.clone()]);
    std::thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let (home, tools, image) = (&home, &tools, &image);
            scope.spawn(move || {
                let (reference, folder) =
                    (format!("{}/team/app:1", node.daemon().address()), format!("machine-{n}"));
                home.run(&mut tools.copy(&reference, &folder, None));
                image.assert_is(&home.path(&folder));
            });
        }
    });
    for digest in image.blobs.keys() {
        assert_eq!(origin.hits("GET", &blob_path("team/app", digest)), 1, "{digest}");
    }
    // A newcomer has it from the others: of the registry it wants to know what the tag means.
    nodes.iter().for_each(Node::settle);
    let peers = nodes.iter().map(Node::as_peer).collect();
    nodes.push(Node::with(&[NO_INDEX], |config, tuning| {
        config.near.swarm = true;
        config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
        config.near.peers = peers;
        config.oci = vec![configured.clone()];
        tuning.hidden = true;
    }));
    until("it knows the others", || nodes[3].neighbours() == 3);
    let asked = origin.door.total();
    let reference = format!("{}/team/app:1", nodes[3].daemon().address());
    home.run(&mut tools.copy(&reference, "newcomer", None));
    image.assert_is(&home.path("newcomer"));
    let answer = nodes[3].get(&blob_path("team/app", image.largest().0));
    assert_eq!(answer.cache(), "HIT");
    assert_eq!(origin.door.total() - asked, 1, "one HEAD");
    assert_eq!(origin.hits("GET", &manifest_path("team/app", "1")), 0);
}

/// `kill -9` in the middle of a layer.
#[test]
fn killed_in_the_middle() {
    let registry = FakeRegistry::start();
    let image = Image::new(1, &[LARGE]);
    registry.put("team/app", "1", &image);
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    let latch = in_two_goes(&registry.server, &path, bytes, 2 << 20);
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let settings = format!("[[oci]]\nname = \"corp\"\nurl = \"http://{}\"\nroot = true\n", registry.host());
    let node = Process::start(&data, NO_INDEX, &settings);
    assert_eq!(get(&node.url(&manifest_path("team/app", "1"))).status, 200);
    let small = image.blobs.keys().find(|digest| *digest != layer).expect("a config");
    until("a layer is stored", || get(&node.url(&blob_path("team/app", small))).cache() == "HIT");
    let url = node.url(&path);
    let address = node.url.trim_start_matches("http://").parse().expect("an address");
    let mut reader = Raw::connect(address).get(&path);
    reader.read_body(1 << 20);
    assert!(std::fs::read_dir(data.join("incoming")).expect("a folder").count() > 0, "half of it is here");
    node.kill();
    drop(reader);
    assert!(attempt("GET", &url, &[]).is_err());

    let node = Process::start(&data, NO_INDEX, &settings);
    let whole = std::fs::read_dir(data.join("incoming")).expect("a folder").count();
    assert_eq!(whole, 0, "nothing half-written stays");
    // What was stored before is there.
    let answer = get(&node.url(&blob_path("team/app", small)));
    assert!(answer.cache() == "HIT" && answer.body == image.blobs[small]);
    assert_eq!(get(&node.url(&manifest_path("team/app", "1"))).cache(), "HIT");
    latch.open();
    let answer = get(&node.url(&path));
    assert!((answer.status, answer.cache()) == (200, "MISS") && answer.body == bytes);
    until("it is stored", || get(&node.url(&path)).cache() == "HIT");
    node.stop();
    let report = process::asked(&["verify", "--data", data.to_str().expect("UTF-8")]);
    assert_eq!(report["damaged"].as_array().map(Vec::len), Some(0), "{report}");
    assert_eq!(report["artifacts"], 3, "{report}");
    assert_eq!(layer, Sha256::of(&answer.body).digest().to_string());
}
