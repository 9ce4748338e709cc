//! Many at once, and an end in the middle: one layer is one fetch, and what is half there is not there.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dpm::base::Sha256;
use dpm::config::Registry as Config;

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::through::{Front, with_login};
use super::tokens::{PASSWORD, Tokens, USER};
use crate::support::upstream::{self, Asked};
use crate::support::{
    Fault, File, Latch, Process, Raw, Upstream, attempt, get, process, random_bytes, request, until,
};

/// Larger than what is held back, and than one chunk.
const LARGE: usize = (3 << 20) + 12_345;

/// Nobody listens there.
const NO_INDEX: &str = "http://127.0.0.1:1/simple/";

/// Sends a layer up to `first`, and the rest when the latch is open.
fn in_two_goes(server: &Upstream, path: &str, bytes: &[u8], first: usize) -> Latch {
    let (latch, bytes) = (Latch::default(), bytes.to_vec());
    let gate = latch.clone();
    server.route(path, move |asked, out| {
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

/// A layer that is large enough to come in parts, whose registry wants tokens and has its files elsewhere, and one part
/// breaks off. The first word of all is a question for a piece of it.
#[test]
fn a_large_layer_comes_in_parts() {
    let registry = FakeRegistry::start();
    let (tokens, files) = (Tokens::start(300), Upstream::start());
    let image = Image::with_layer(many_different_mebibytes(70));
    registry.put("team/app", "1", &image);
    registry.ask_for_tokens(&tokens);
    let (layer, bytes) = image.largest();
    let (path, place) = (blob_path("team/app", layer), "/blob?signed=yes");
    const CUT: usize = 1_000_000;
    let (file, count, another, at_once) =
        (File::new(bytes), AtomicUsize::new(0), Latch::default(), Arc::new(AtomicBool::new(false)));
    let were = at_once.clone();
    files.route(place, move |asked, out| {
        let (nth, size) = (count.fetch_add(1, Ordering::SeqCst), file.bytes.len());
        let Some((0, end)) = asked.range(size) else {
            another.open();
            return upstream::answer(&file, asked, out, (nth == 2).then_some(Fault::Cut(CUT)));
        };
        let told = format!("content-range: bytes 0-{}/{size}\r\ncontent-length: {end}", end - 1);
        write!(out, "HTTP/1.1 206 X\r\n{told}\r\n\r\n")?;
        // The first part does not come before another one is asked for.
        another.pass();
        were.store(another.is_open(), Ordering::SeqCst);
        out.write_all(&file.bytes[..end])
    });
    registry.redirect(&path, &files.url(place));
    let also = [tokens.upstream.url("/"), files.url("/")].map(|url| url.parse().expect("a URL"));
    let configured = with_login(&registry.host(), Some((USER, PASSWORD)));
    let front = Front::patient(vec![Config { files: also.into(), ..configured }]);
    front.tag("team/app", "1", "MISS", &image);

    let (first, last) = (50_000_000, 50_001_000);
    let part = front.ask("GET", &path, &[("range", &format!("bytes={first}-{last}"))]);
    assert_eq!((part.status, part.cache()), (206, "MISS"));
    assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/{}", bytes.len()));
    assert!(part.body == bytes[first..=last]);
    assert!(front.node.get(&path).body == bytes);
    front.node.settle();
    let answer = front.node.get(&path);
    assert!(answer.cache() == "HIT" && answer.body == bytes);

    assert!(at_once.load(Ordering::SeqCst), "one part after the other");
    let asked = files.asked(place);
    let starts: HashSet<_> = asked.iter().map(|asked| asked.header("range").to_owned()).collect();
    // A part once each, and the one that broke off once more from where it did.
    assert_eq!(starts.len(), asked.len(), "{starts:?}");
    let begins = |asked: &Asked| asked.range(bytes.len()).expect("every part is asked for as a range").0;
    let begun: HashSet<_> = asked.iter().map(begins).collect();
    assert!(begun.len() > 8 && begun.iter().any(|at| begun.contains(&(at + CUT))), "{starts:?}");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_empty()), "no word of who we are");
    let at_registry = registry.server.asked(&path);
    assert!(at_registry.iter().all(|asked| !asked.header("authorization").starts_with("Basic")));
    assert_eq!(tokens.given(), 1);

    // A small one in one piece, whose first word is such a question as well.
    let small = image.blobs.keys().find(|digest| *digest != layer).expect("a configuration");
    let small_path = blob_path("team/app", small);
    let part = front.ask("GET", &small_path, &[("range", "bytes=-7")]);
    let whole = &image.blobs[small];
    assert_eq!((part.status, &*part.body), (206, &whole[whole.len() - 7..]));
    front.node.settle();
    assert!(front.node.get(&small_path).body == *whole);
    assert_eq!(front.node.get(&small_path).cache(), "HIT");
}

/// So many, no two the same.
fn many_different_mebibytes(count: usize) -> Vec<u8> {
    let mut bytes = random_bytes(1, 1 << 20).repeat(count);
    for (n, mebibyte) in bytes.chunks_mut(1 << 20).enumerate() {
        mebibyte[..8].copy_from_slice(&n.to_be_bytes());
    }
    bytes
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
