//! Registries that send what they should not, or stop sending it: nothing of it is stored, and nobody is told that it
//! is what was asked for.

use std::io::Write;

use serde_json::{Value, json};

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::{Image, OCI_INDEX, OCI_MANIFEST};
use super::through::Front;
use super::tools::Tools;
use crate::clients::process::Home;
use crate::support::{Fault, File, Framing, Ranges, Upstream, random_bytes};
use dpm::base::{Algorithm, Hasher, Sha256};

/// A layer of many pieces, of which some are given out before the last has come.
const LARGE: usize = 600_000;

/// A registry with one image, and dpm in front of it.
fn house(layer: usize) -> (FakeRegistry, Front, Image) {
    let (registry, image) = (FakeRegistry::start(), Image::new(1, &[layer]));
    registry.put("team/app", "1", &image);
    let front = Front::of(&registry.host());
    (registry, front, image)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::of(bytes).digest().to_string()
}

/// Puts a manifest there under its digest and a tag, as one of this type. Gives its digest.
fn put(registry: &FakeRegistry, tag: &str, media_type: &'static str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let file = File { content_type: media_type, ..File::new(bytes) }.header("Docker-Content-Digest", &digest);
    registry.server.serve(&manifest_path("team/app", tag), file.clone());
    registry.server.serve(&manifest_path("team/app", &digest), file);
    digest
}

impl Front {
    fn has(&self, digest: &str) -> bool {
        let digest = digest.parse().expect("a digest");
        self.node.settle();
        self.node.daemon().rooms().store.describe(&digest).expect("the store").is_some()
    }
}

#[test]
fn other_bytes_than_the_digest_names() {
    let home = Home::bare();
    let tools = Tools::new(&home);
    for size in [3000, LARGE] {
        let (registry, front, image) = house(size);
        let (layer, bytes) = image.largest();
        let path = blob_path("team/app", layer);
        let mut other = bytes.to_vec();
        other[bytes.len() / 2] ^= 1;
        let longer = [bytes, b"more"].concat();
        for (known, lies) in [
            (false, vec![other.clone(), bytes[..bytes.len() - 7].to_vec(), longer.clone(), Vec::new()]),
            (true, vec![other, bytes[..bytes.len() - 7].to_vec(), longer, Vec::new()]),
        ] {
            if known {
                // Now the manifest has said what size it is.
                front.tag("team/app", "1", "MISS", &image);
            }
            for lie in lies {
                registry.lie(&path, lie);
                front.node.assert_cut(&path);
                assert!(!front.has(layer), "{size}");
            }
        }
        let reference = format!("{}/team/app:1", front.host());
        assert!(!home.try_run(&mut tools.copy(&reference, "lied", None)).0.success());
        registry.lie(&path, bytes);
        home.run(&mut tools.copy(&reference, &format!("right-{size}"), None));
        image.assert_is(&home.path(&format!("right-{size}")));
        assert!(front.has(layer));
    }
}

#[test]
fn another_manifest_than_the_digest_names() {
    let (registry, front, image) = house(3000);
    let (path, tag) = (manifest_path("team/app", &image.root.digest), manifest_path("team/app", "1"));
    let right = image.root_bytes();
    let other = Image::new(2, &[3000]);
    for lie in [other.root_bytes(), &right[..right.len() - 1], b"", b"{}"] {
        registry.lie(&path, lie);
        registry.lie(&tag, lie);
        for path in [&path, &tag] {
            front.assert_refused(path, 502, "UNKNOWN");
        }
        assert!(!front.has(&image.root.digest));
    }
    // A registry that calls other bytes by their own digest.
    let stated = File { content_type: OCI_MANIFEST, ..File::new(other.root_bytes()) }
        .header("Docker-Content-Digest", &other.root.digest);
    registry.server.serve(&path, stated);
    front.assert_refused(&path, 502, "UNKNOWN");
    registry.server.remove(&path);
    registry.lie(&path, right);
    // A lie that came with the answer for the tag costs a question more, and nothing else.
    front.tag("team/app", "1", "MISS", &image);
}

#[test]
fn manifests_that_are_too_large() {
    let (registry, front, _) = house(3000);
    let image = Image::new(1, &[100]);
    let mut manifest: Value = serde_json::from_slice(image.root_bytes()).expect("JSON");
    manifest["annotations"] = json!({"note": "A".repeat(4 << 20)});
    let bytes = manifest.to_string().into_bytes();
    for framing in [Framing::Length, Framing::Chunked] {
        let digest = put(&registry, "huge", OCI_MANIFEST, &bytes);
        let plain = File { content_type: OCI_MANIFEST, framing, ..File::new(bytes.clone()) };
        let by_digest = manifest_path("team/app", &digest);
        registry.server.serve(&by_digest, plain.clone());
        front.assert_refused(&by_digest, 502, "UNKNOWN");
        front.assert_refused(&manifest_path("team/app", "huge"), 502, "UNKNOWN");
        // Nor is it read to find out what it is.
        registry.server.serve(&manifest_path("team/app", "nameless"), plain);
        front.assert_refused(&manifest_path("team/app", "nameless"), 502, "UNKNOWN");
        assert!(!front.has(&digest));
    }
}

#[test]
fn manifests_that_are_odd() {
    let (registry, front, image) = house(3000);
    let one: Value = serde_json::from_slice(image.root_bytes()).expect("JSON");
    let mut both = one.clone();
    both["manifests"] = json!([]);
    let old = json!({"schemaVersion": 1, "name": "team/app", "fsLayers": []});
    for (tag, media_type, manifest, why) in [
        ("both", OCI_MANIFEST, &both, "index and an image at once"),
        ("called", OCI_INDEX, &one, "index and an image at once"),
        ("old", "application/vnd.docker.distribution.manifest.v1+prettyjws", &old, "first schema"),
    ] {
        // What calls itself an image is none to a client that goes by the header.
        let digest = put(&registry, tag, media_type, manifest.to_string().as_bytes());
        for reference in [&digest, tag] {
            let path = manifest_path("team/app", reference);
            let answer = front.assert_refused(&path, 502, "MANIFEST_INVALID");
            assert!(answer.text().contains(why), "{tag}: {}", answer.text());
        }
    }
    // What dpm does not know is handed on as it is, under the name that its registry has for it.
    let odd = "application/vnd.example.odd.v7+json";
    for (tag, bytes) in [("odd", &b"{\"odd\": [1, 2]}"[..]), ("binary", b"\x00\x01 no JSON")] {
        let digest = put(&registry, tag, odd, bytes);
        for (reference, cache) in [(tag, "MISS"), (&digest, "HIT"), (tag, "HIT")] {
            let answer = front.node.get(&manifest_path("team/app", reference));
            assert_eq!((answer.status, answer.cache()), (200, cache), "{tag}");
            assert_eq!(answer.header("content-type"), odd, "{tag}");
            assert!(answer.body == bytes, "{tag}");
        }
    }
    // But not as a page that a browser would show as one of dpm's.
    for (tag, bytes) in
        [("page", &b"<script>alert(1)</script>"[..]), ("text", b"\"<script>alert(1)</script>\"")]
    {
        let digest = put(&registry, tag, "text/html", bytes);
        for reference in [tag, &digest] {
            front.assert_refused(&manifest_path("team/app", reference), 502, "MANIFEST_INVALID");
        }
    }
    put(&registry, "html", "text/html", Image::new(2, &[3000]).root_bytes());
    assert_eq!(front.node.get(&manifest_path("team/app", "html")).header("content-type"), OCI_MANIFEST);
    let list = File { content_type: "text/html", ..File::new("{\"tags\": [\"<script>alert(1)</script>\"]}") };
    registry.server.serve("/v2/team/page/tags/list", list);
    assert_eq!(front.node.get("/v2/team/page/tags/list").header("content-type"), "application/json");
}

/// Indexes of indexes, and indexes in a ring, are asked for as far as a client asks for them.
#[test]
fn manifests_in_manifests() {
    let (registry, front, image) = house(3000);
    let row = |digest: &str, size: usize| json!({"mediaType": OCI_INDEX, "digest": digest, "size": size});
    let (mut digest, mut size) = (image.root.digest.clone(), image.root.size);
    for _ in 0..50 {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row(&digest, size)]});
        let bytes = index.to_string();
        digest = put(&registry, "nested", OCI_INDEX, bytes.as_bytes());
        size = bytes.len();
    }
    assert_eq!(front.node.get(&manifest_path("team/app", "nested")).status, 200);
    let asked = registry.server.total();
    assert_eq!(asked, 1, "GET of the tag");
    // A ring needs a liar: what it sends is not what the ring says.
    let first = json!({"schemaVersion": 2, "manifests": [row(&sha256(b"second"), 10)]}).to_string();
    let ring = put(&registry, "ring", OCI_INDEX, first.as_bytes());
    let second = json!({"schemaVersion": 2, "manifests": [row(&ring, first.len())]}).to_string();
    let path = manifest_path("team/app", &sha256(b"second"));
    registry.server.file(&path, OCI_INDEX, second);
    assert_eq!(front.node.get(&manifest_path("team/app", "ring")).status, 200);
    front.assert_refused(&path, 502, "UNKNOWN");
    assert!(!front.has(&sha256(b"second")));
}

/// Layers that lie elsewhere are the client's business: dpm asks nobody that a manifest names.
#[test]
fn layers_that_lie_elsewhere() {
    let (registry, front, image) = house(3000);
    let elsewhere = Upstream::start();
    let bytes = random_bytes(7, 3000);
    elsewhere.file("/layer", "application/octet-stream", bytes.clone());
    let mut manifest: Value = serde_json::from_slice(image.root_bytes()).expect("JSON");
    manifest["layers"][0] = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 3000,
        "digest": sha256(&bytes), "urls": [elsewhere.url("/layer")],
    });
    put(&registry, "foreign", OCI_MANIFEST, manifest.to_string().as_bytes());
    assert_eq!(front.node.get(&manifest_path("team/app", "foreign")).status, 200);
    front.assert_refused(&blob_path("team/app", &sha256(&bytes)), 404, "BLOB_UNKNOWN");
    assert_eq!(elsewhere.total(), 0);
}

/// A manifest with a wrong size for a layer does not keep another one's pullers from it.
#[test]
fn two_manifests_that_do_not_agree() {
    let (registry, front, image) = house(3000);
    let mut manifest: Value = serde_json::from_slice(image.root_bytes()).expect("JSON");
    manifest["layers"][0]["size"] = json!(7);
    put(&registry, "wrong", OCI_MANIFEST, manifest.to_string().as_bytes());
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    assert_eq!(front.node.get(&manifest_path("team/app", "wrong")).status, 200);
    front.node.assert_cut(&path);
    front.tag("team/app", "1", "MISS", &image);
    assert!(front.node.get(&path).body == bytes);
}

#[test]
fn nothing_at_all_and_next_to_nothing() {
    let (registry, front, _) = house(3000);
    for bytes in [&b""[..], b"{}"] {
        let path = blob_path("team/app", &sha256(bytes));
        registry.server.file(&path, "application/octet-stream", bytes);
        for cache in ["MISS", "HIT"] {
            let answer = front.node.get(&path);
            assert_eq!((answer.status, answer.cache(), &*answer.body), (200, cache, bytes));
            assert_eq!(answer.header("content-length"), bytes.len().to_string());
            front.node.settle();
        }
        assert_eq!(front.ask("HEAD", &path, &[]).header("content-length"), bytes.len().to_string());
    }
}

/// The other digest that the specification knows.
#[test]
fn sha512() {
    let (registry, front, image) = house(3000);
    let digest = |bytes: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish().to_string()
    };
    let layer = random_bytes(9, LARGE);
    let mut manifest: Value = serde_json::from_slice(image.root_bytes()).expect("JSON");
    manifest["layers"][0]["digest"] = digest(&layer).into();
    manifest["layers"][0]["size"] = layer.len().into();
    let manifest = manifest.to_string().into_bytes();
    let (blob, by_digest) =
        (blob_path("team/app", &digest(&layer)), manifest_path("team/app", &digest(&manifest)));
    // It goes on calling it by the digest that it likes best.
    let file = File { content_type: OCI_MANIFEST, ..File::new(manifest.clone()) }
        .header("Docker-Content-Digest", &sha256(&manifest));
    registry.server.serve(&by_digest, file);
    let mut lie = layer.clone();
    lie[3] ^= 1;
    registry.server.file(&blob, "application/octet-stream", lie);
    front.node.assert_cut(&blob);
    registry.server.file(&blob, "application/octet-stream", layer.clone());
    for cache in ["MISS", "HIT"] {
        for (path, bytes) in [(&by_digest, &manifest), (&blob, &layer)] {
            let answer = front.node.get(path);
            assert_eq!((answer.status, answer.cache()), (200, cache), "{}", answer.text());
            assert_eq!(answer.header("docker-content-digest"), digest(bytes), "{cache}");
            let known = [("if-none-match", answer.header("etag"))];
            assert_eq!(front.ask("GET", path, &known).status, 304, "{cache}");
            assert!(&answer.body == bytes);
            front.node.settle();
        }
    }
    let part = front.ask("GET", &blob, &[("range", "bytes=5-9")]);
    assert_eq!((part.status, &*part.body), (206, &layer[5..10]));
}

#[test]
fn layers_that_break_off() {
    for (ranges, fault) in [
        (Ranges::Honoured, Fault::Cut(200_000)),
        (Ranges::Ignored, Fault::Cut(200_000)),
        (Ranges::Honoured, Fault::Hang(200_000)),
        (Ranges::Ignored, Fault::Hang(200_000)),
    ] {
        let (registry, front, image) = house(LARGE);
        let (layer, bytes) = image.largest();
        let path = blob_path("team/app", layer);
        let file = File { ranges, ..File::new(bytes) };
        registry.server.faulty(&path, file, move |n| (n == 0).then_some(fault));
        let answer = front.node.get(&path);
        assert_eq!((answer.status, answer.cache()), (200, "MISS"), "{ranges:?} {fault:?}");
        assert!(answer.body == bytes, "{ranges:?} {fault:?}");
        let asked = registry.server.asked(&path);
        assert_eq!((asked.len(), asked[1].header("range")), (2, "bytes=200000-"), "{ranges:?} {fault:?}");
        assert!(front.has(layer));
    }
    // For ever: the client's answer breaks off, and is no whole layer.
    let (registry, front, image) = house(LARGE);
    let path = blob_path("team/app", image.largest().0);
    registry.faulty(&path, |_| Some(Fault::Cut(0)));
    front.node.assert_cut(&path);
    assert!(!front.has(image.largest().0));
}

/// What is announced, what comes, and what the manifest says: three lengths that have to be one.
#[test]
fn lengths_that_lie() {
    let (registry, front, image) = house(LARGE);
    let (layer, bytes) = image.largest();
    let (path, size) = (blob_path("team/app", layer), bytes.len());
    for manifest_is_known in [false, true] {
        if manifest_is_known {
            front.tag("team/app", "1", "MISS", &image);
        }
        for (announced, sent) in
            [(size + 10, size), (size - 10, size), (size - 10, size - 10), (size, size - 10)]
        {
            let sent = bytes[..sent].to_vec();
            registry.server.route(&path, move |_, out| {
                write!(out, "HTTP/1.1 200 X\r\ncontent-length: {announced}\r\n\r\n")?;
                out.write_all(&sent)?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            });
            front.node.assert_cut(&path);
            assert!(!front.has(layer), "{announced} {}", manifest_is_known);
        }
    }
    // Without a length it is the digest that says where it ends.
    let file = |bytes: &[u8]| File { framing: Framing::Chunked, ..File::new(bytes) };
    registry.server.serve(&path, file(&bytes[..size - 1]));
    front.node.assert_cut(&path);
    registry.server.serve(&path, file(bytes));
    assert!(front.node.get(&path).body == bytes);
}

/// Nothing can be stored, and everything is handed on, held against its digest all the same.
#[test]
fn a_disk_that_is_full() {
    let home = Home::bare();
    let tools = Tools::new(&home);
    let (registry, mut front, image) = house(LARGE);
    front.node.restart(|config, _| config.store.free_margin_bytes = 1 << 60);
    front.tag("team/app", "1", "BYPASS", &image);
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    assert_eq!(front.node.get(&path).cache(), "BYPASS");
    home.run(&mut tools.copy(&format!("{}/team/app:1", front.host()), "out", None));
    image.assert_is(&home.path("out"));
    let mut lie = bytes.to_vec();
    lie[3] ^= 1;
    registry.lie(&path, lie);
    front.node.assert_cut(&path);
    registry.lie(&manifest_path("team/app", &image.root.digest), "{}");
    front.node.assert_cut(&manifest_path("team/app", "1"));
    assert_eq!(front.node.artifacts(), 0);
}

/// A registry that fails is not one that does not know, whatever it is asked for.
#[test]
fn registries_that_fail() {
    let (registry, front, image) = house(3000);
    let paths = [
        manifest_path("team/app", "1"),
        manifest_path("team/app", &image.root.digest),
        blob_path("team/app", image.largest().0),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{}", image.root.digest),
    ];
    registry.server.broken("/round", Fault::Says("302 X\r\nlocation: /round"));
    for (fault, status) in
        [("500 Broken", 502), ("504 Slow", 502), ("418 Teapot", 502), ("302 X\r\nlocation: /round", 502)]
    {
        for path in &paths {
            registry.server.broken(path, Fault::Says(fault));
            for method in ["HEAD", "GET"] {
                let answer = front.ask(method, path, &[]);
                assert_eq!(answer.status, status, "{fault}: {method} {path}");
                assert!(!answer.header("retry-after").is_empty());
            }
        }
    }
    paths.iter().for_each(|path| registry.server.remove(path));
    for path in &paths {
        assert_eq!(front.node.get(path).status, 200, "{path}");
    }
    let hanging = manifest_path("team/app", "hangs");
    registry.server.broken(&hanging, Fault::Silence);
    front.assert_refused(&hanging, 504, "UNKNOWN");
}
