//! The shortest way through the house: page, file, again.

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
        while node.metric("dpm_flights") > 0 {}
    }
    assert_eq!(upstream.hits("/f/demo-1.0-py3-none-any.whl"), 1);
    assert_eq!(upstream.hits("/simple/demo/"), 1);
}
