//! The shortest way through the house: page, file, again.

use std::io::Write as _;

use dpm::base::Sha256;

use crate::support::{Node, Upstream, get};

#[test]
fn a_file_is_fetched_once() {
    let upstream = Upstream::start();
    let wheel = b"not really a wheel".repeat(10_000);
    let sha256 = Sha256::of(&wheel);
    upstream.file("/f/demo-1.0-py3-none-any.whl", "application/octet-stream", wheel.clone());
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","files":[{{"filename":"demo-1.0-py3-none-any.whl","url":"{}","hashes":{{"sha256":"{sha256}"}},"size":{}}}]}}"#,
        upstream.url("/f/demo-1.0-py3-none-any.whl"),
        wheel.len()
    );
    upstream.file("/simple/demo/", "application/vnd.pypi.simple.v1+json", page);
    let node = Node::new(&upstream.url("/simple/"));

    let page = get(&node.url("/pypi/simple/demo/"));
    assert_eq!((page.status, page.header("x-cache")), (200, "MISS"), "{}", page.text());
    let file = node.url(&format!("/pypi/files/demo/sha256-{sha256}/demo-1.0-py3-none-any.whl"));
    for cache in ["MISS", "HIT", "HIT"] {
        let answer = get(&file);
        assert_eq!((answer.status, answer.header("x-cache")), (200, cache));
        assert!(answer.body == wheel);
        // The commit comes after the last byte: a request in between would join the flight.
        node.settle();
    }
    assert_eq!(upstream.hits("/f/demo-1.0-py3-none-any.whl"), 1);
    assert_eq!(upstream.hits("/simple/demo/"), 1);
}

/// An index without metadata files: they are taken from the wheel, and `X-Cache` says what that cost.
#[test]
fn metadata_from_the_wheel() {
    let text = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n";
    let mut wheel = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    wheel
        .start_file("demo-1.0.dist-info/METADATA", zip::write::SimpleFileOptions::default())
        .expect("a file");
    wheel.write_all(text.as_bytes()).expect("memory");
    let wheel = wheel.finish().expect("a wheel").into_inner();
    let sha256 = Sha256::of(&wheel);
    let upstream = Upstream::start();
    let (name, path) = ("demo-1.0-py3-none-any.whl", "/f/demo-1.0-py3-none-any.whl");
    upstream.file(path, "application/octet-stream", wheel);
    let page = format!("<a href=\"{}#sha256={sha256}\">{name}</a>", upstream.url(path));
    upstream.file("/simple/demo/", "text/html", page);
    let node = Node::new(&upstream.url("/simple/"));
    let metadata = node.url(&format!("/pypi/files/demo/sha256-{sha256}/{name}.metadata"));
    for cache in ["MISS", "HIT"] {
        let answer = get(&metadata);
        assert_eq!((answer.status, answer.header("x-cache")), (200, cache), "{}", answer.text());
        assert_eq!(answer.text(), text);
    }
    assert_eq!(upstream.hits(path), 1);
}
