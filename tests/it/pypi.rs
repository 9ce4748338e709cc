//! The simple API as clients see it: forms, links, conditions, metadata, what is passed on as it was.

use dpm::base::Sha256;
use dpm::daemon::Order;
use serde_json::{Value, json};
use url::Url;

use crate::support::{
    Answer, Fault, File, JSON, Node, Project, Ranges, Raw, Upstream, attempt, bytes, request, wheel,
};

const HTML: &str = "application/vnd.pypi.simple.v1+html";

fn start() -> (Upstream, Node, Project) {
    let upstream = Upstream::start();
    let node = Node::hasty(&upstream.url("/simple/"));
    let project = Project::new("demo", 10_000).publish(&upstream);
    (upstream, node, project)
}

fn page(node: &Node, project: &Project, accept: &str) -> Answer {
    request("GET", &node.url(&project.page()), &[("accept", accept)])
}

/// The address that a link of a page leads to, as a path of the node.
fn follow(node: &Node, project: &Project, link: &str) -> String {
    let url = Url::parse(&node.url(&project.page())).unwrap().join(link).unwrap();
    assert!(url.as_str().starts_with(&node.url("/pypi/files/")), "{url}");
    url.path().to_owned()
}

#[test]
fn either_form_gives_both() {
    let names = ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"];
    for upstream_form in ["json", "html"] {
        for first in [JSON, HTML, "text/html"] {
            let (upstream, node, project) = start();
            let file = match upstream_form {
                "json" => {
                    let mut second = project.entry(&upstream);
                    second["filename"] = names[1].into();
                    File::json(project.page_of(&[project.entry(&upstream), second]))
                }
                _ => {
                    let hash = project.sha256;
                    let link = |name: &str| {
                        let to = upstream.url(&format!("/f/{name}"));
                        format!("<a href=\"{to}#sha256={hash}\">{name}</a>")
                    };
                    File::html(format!("<!DOCTYPE html><body>{}{}</body>", link(names[0]), link(names[1])))
                }
            };
            upstream.serve(&project.page_path(), file);
            assert_eq!(page(&node, &project, first).cache(), "MISS");
            let json = page(&node, &project, JSON);
            assert_eq!((json.cache(), json.header("content-type")), ("HIT", JSON));
            let files = json.json()["files"].as_array().unwrap().clone();
            let listed: Vec<_> = files.iter().map(|f| f["filename"].as_str().unwrap()).collect();
            assert_eq!(listed, names);
            assert_eq!(files[0]["hashes"]["sha256"], project.sha256.hex());
            let html = page(&node, &project, "text/html").text();
            for file in &files {
                let link = file["url"].as_str().unwrap();
                assert!(html.contains(&format!("href=\"{link}#sha256={}\"", project.sha256)), "{html}");
            }
            for accept in [JSON, HTML, "text/html", "*/*"] {
                let text = page(&node, &project, accept).text();
                assert!(!text.contains(&upstream.host()) && !text.contains("/f/demo"), "{text}");
            }
            let path = follow(&node, &project, files[0]["url"].as_str().unwrap());
            assert!(node.get(&path).body == project.bytes);
            assert_eq!(upstream.hits(&project.page_path()), 1);
            // Any mount of the whole will do: links go up no further than its own paths.
            let mount = Url::parse("http://proxy.example.org/some/where/pypi/simple/demo/").unwrap();
            let there = mount.join(files[0]["url"].as_str().unwrap()).unwrap();
            assert!(there.path().starts_with("/some/where/pypi/files/demo/"), "{there}");
        }
    }
}

#[test]
fn which_form_is_answered() {
    let (_upstream, node, project) = start();
    let legacy = "text/html; charset=utf-8";
    let rows = [
        ("", "", legacy),
        ("*/*", "", legacy),
        (JSON, "", JSON),
        ("application/vnd.pypi.simple.latest+json", "", JSON),
        ("application/vnd.pypi.simple.latest+html", "", HTML),
        (&format!("{JSON}, {HTML};q=0.2, text/html;q=0.01"), "", JSON),
        (&format!("{JSON};q=0.1, {HTML};q=0.2"), "", HTML),
        ("text/html", "?format=application/vnd.pypi.simple.v1+json", JSON),
        ("image/png", "", "406"),
        ("application/vnd.pypi.simple.v2+json", "", "406"),
        (JSON, "?format=image/png", "406"),
    ];
    for (accept, query, want) in rows {
        let headers: &[_] = if accept.is_empty() { &[] } else { &[("accept", accept)] };
        let answer = request("GET", &node.url(&(project.page() + query)), headers);
        if want == "406" {
            assert_eq!(answer.status, 406, "{accept}{query}");
        } else {
            // ureq says `*/*` where nothing is said.
            assert_eq!(answer.header("content-type"), want, "{accept}{query}");
        }
        assert!(answer.header("vary").contains("Accept"));
    }
    let raw = Raw::connect(node.daemon().address());
    let text = raw.send(format!("GET {} HTTP/1.0\r\n\r\n", project.page())).read_all();
    assert!(text.contains("content-type: text/html"), "{text}");
}

#[test]
fn proper_names() {
    let (upstream, node, project) = start();
    let rows = [
        ("/pypi/simple", "simple/"),
        ("/pypi/simple/demo", "demo/"),
        ("/pypi/simple/Demo/", "../demo/"),
        ("/pypi/simple/a__B.c/", "../a-b-c/"),
        ("/pypi/simple/a.b", "a-b/"),
        ("/pypi/simple/Demo/?format=text/html", "../demo/?format=text/html"),
    ];
    for (path, to) in rows {
        let answer = node.get(path);
        assert_eq!((answer.status, answer.header("location")), (301, to), "{path}");
        let target = Url::parse(&node.url(path)).unwrap().join(to).unwrap();
        assert!(target.path().starts_with("/pypi/simple/"));
    }
    assert_eq!(upstream.total(), 0);
    assert_eq!(node.get(&project.page()).status, 200);
}

#[test]
fn the_list_of_all_projects() {
    let (upstream, node, _) = start();
    let list = json!({"meta": {"api-version": "1.0"}, "projects": [{"name": "Demo.X"}, {"name": "../y"}]});
    upstream.serve("/simple/", File::json(list.to_string()));
    let answer = request("GET", &node.url("/pypi/simple/"), &[("accept", JSON)]);
    assert_eq!(answer.json()["projects"], json!([{"name": "Demo.X"}]));
    let html = request("GET", &node.url("/pypi/simple/"), &[("accept", "text/html")]);
    assert!(html.text().contains("<a href=\"demo-x/\">Demo.X</a>"), "{}", html.text());
    assert_eq!((html.cache(), upstream.hits("/simple/")), ("HIT", 1));
}

#[test]
fn conditions() {
    let (upstream, node, project) = start();
    let first = page(&node, &project, JSON);
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"') && !first.header("vary").is_empty());
    let url = node.url(&project.page());
    let same = request("GET", &url, &[("accept", JSON), ("if-none-match", &etag)]);
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, etag.as_str()));
    let other = request("GET", &url, &[("accept", HTML), ("if-none-match", &etag)]);
    assert_eq!(other.status, 200);
    let head = request("HEAD", &url, &[("accept", JSON)]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), first.body.len().to_string());
    let packed = request("GET", &url, &[("accept", JSON), ("accept-encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding") == "gzip", packed.header("etag") != etag);

    // A file before it is fetched: told by the index, nothing is downloaded.
    let file = node.url(&project.file());
    let head = request("HEAD", &file, &[]);
    assert_eq!((head.status, head.header("content-length")), (200, "10000"));
    assert_eq!(head.header("accept-ranges"), "bytes");
    assert_eq!(upstream.hits(&project.file_path()), 0);
    let whole = node.get(&project.file());
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    node.settle();
    let stored = request("HEAD", &file, &[]);
    assert_eq!((stored.header("content-length"), stored.cache()), ("10000", "HIT"));
    let etag = format!("\"{}\"", project.sha256);
    for header in [head.header("etag"), whole.header("etag"), stored.header("etag")] {
        assert_eq!(header, etag);
    }
    let same = request("GET", &file, &[("if-none-match", &etag)]);
    assert_eq!((same.status, same.body.len()), (304, 0));
}

#[test]
fn a_file_whose_size_nobody_states_is_measured() {
    let (upstream, node, project) = start();
    let mut entry = project.entry(&upstream);
    entry.as_object_mut().unwrap().remove("size");
    project.list(&upstream, &[entry]);
    let head = request("HEAD", &node.url(&project.file()), &[]);
    assert_eq!((head.status, head.header("content-length")), (200, "10000"));
    assert_eq!(upstream.asked(&project.file_path())[0].method, "HEAD");
    upstream.remove(&project.file_path());
    assert_eq!(request("HEAD", &node.url(&project.file()), &[]).status, 404);
    upstream.broken(&project.file_path(), Fault::Says("500 Broken"));
    assert_eq!(request("HEAD", &node.url(&project.file()), &[]).status, 502);
}

#[test]
fn ranges() {
    let (_upstream, node, project) = start();
    let url = node.url(&project.file());
    let etag = format!("\"{}\"", project.sha256);
    for stored in [false, true] {
        let part = |range: &str, if_range: &str| {
            let headers = [("range", range), ("if-range", if_range)];
            request("GET", &url, &headers[..if if_range.is_empty() { 1 } else { 2 }])
        };
        let rows = [
            ("bytes=0-99", "", 0, 100),
            ("bytes=9990-", "", 9990, 10),
            ("bytes=-10", "", 9990, 10),
            ("bytes=5000-99999", "", 5000, 5000),
            ("bytes=0-0", &etag, 0, 1),
        ];
        for (range, if_range, first, length) in rows {
            let answer = part(range, if_range);
            assert_eq!((answer.status, answer.header("accept-ranges")), (206, "bytes"), "{range}");
            let told = format!("bytes {first}-{}/10000", first + length - 1);
            assert_eq!(answer.header("content-range"), told);
            assert!(answer.body == project.bytes[first..first + length], "{range}");
        }
        for (range, if_range) in [("bytes=0-99", "\"other\""), ("bytes=0-1,5-6", "")] {
            let answer = part(range, if_range);
            assert_eq!((answer.status, answer.body.len()), (200, 10_000), "{range}");
        }
        let none = part("bytes=10000-", "");
        assert_eq!((none.status, none.header("content-range")), (416, "bytes */10000"));
        node.settle();
        assert_eq!(part("bytes=0-99", "").cache(), "HIT", "{stored}");
    }
}

#[test]
fn a_plus_is_a_plus() {
    let (upstream, node, mut project) = start();
    project.filename = "demo-1.0+cu121-py3-none-any.whl".into();
    let mut entry = project.entry(&upstream);
    entry["url"] = upstream.url("/f/demo-1.0%2Bcu121-py3-none-any.whl").into();
    project.list(&upstream, &[entry]);
    upstream.serve("/f/demo-1.0%2Bcu121-py3-none-any.whl", File::new(project.bytes.clone()));
    let link = page(&node, &project, JSON).json()["files"][0]["url"].as_str().unwrap().to_owned();
    let linked = follow(&node, &project, &link);
    for path in [linked, project.file(), project.file().replace('+', "%2b")] {
        assert!(node.get(&path).body == project.bytes, "{path}");
        node.settle();
    }
    assert_eq!(upstream.hits("/f/demo-1.0%2Bcu121-py3-none-any.whl"), 1);
}

const METADATA: &str = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Dist: idna\n";

#[test]
fn metadata_comes_from_the_upstream_when_it_has_it() {
    let (upstream, node, project) = start();
    let mut entry = project.entry(&upstream);
    entry["core-metadata"] = json!({"sha256": Sha256::of(METADATA.as_bytes()).hex()});
    project.list(&upstream, &[entry]);
    let at = format!("{}.metadata", project.file_path());
    let here = format!("{}.metadata", project.file());
    // What its digest does not prove is not served.
    upstream.file(&at, "text/plain", METADATA.replace("idna", "evil"));
    node.assert_cut(&here);
    node.settle();
    assert_eq!(node.artifacts(), 0);
    upstream.file(&at, "text/plain", METADATA);
    for cache in ["MISS", "HIT"] {
        let answer = node.get(&here);
        assert_eq!((answer.cache(), answer.text().as_str()), (cache, METADATA));
        node.settle();
    }
    assert_eq!(upstream.hits(&project.file_path()), 0, "the wheel was not needed");
}

#[test]
fn metadata_comes_from_the_wheel_when_the_upstream_has_none() {
    // Not stated; and stated, but not there.
    for stated in [Value::Null, json!(true), json!({"sha256": Sha256::of(METADATA.as_bytes()).hex()})] {
        let (upstream, node, _) = start();
        let project = Project::of("demo", wheel("demo-1.0.dist-info", METADATA)).publish(&upstream);
        let mut entry = project.entry(&upstream);
        entry["core-metadata"] = stated.clone();
        project.list(&upstream, &[entry]);
        let listed = page(&node, &project, JSON).json();
        assert!(!listed["files"][0]["core-metadata"].is_null());
        assert!(page(&node, &project, "text/html").text().contains("data-core-metadata="));
        let here = format!("{}.metadata", project.file());
        for _ in 0..2 {
            let answer = node.get(&here);
            assert_eq!((answer.status, answer.text().as_str()), (200, METADATA), "{stated}");
            assert!(answer.header("content-type").starts_with("text/plain"));
        }
        assert_eq!(request("HEAD", &node.url(&here), &[]).status, 200, "{stated}");
        assert_eq!(upstream.hits(&project.file_path()), 1);
        assert_eq!(node.get(&project.file()).cache(), "HIT");
    }
}

#[test]
fn metadata_that_cannot_be_had_is_no_404() {
    for (name, bytes) in [
        ("no archive", bytes(10_000)),
        ("another project's", wheel("other-1.0.dist-info", METADATA)),
        ("cut off", wheel("demo-1.0.dist-info", METADATA)[..100].to_vec()),
    ] {
        let (upstream, node, _) = start();
        let project = Project::of("demo", bytes).publish(&upstream);
        let answer = node.get(&format!("{}.metadata", project.file()));
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        assert!(node.get(&project.file()).body == project.bytes);
    }
    // Other bytes than stated are not taken from the wheel either.
    let (upstream, node, _) = start();
    let project = Project::of("demo", wheel("demo-1.0.dist-info", METADATA)).publish(&upstream);
    let mut entry = project.entry(&upstream);
    entry["core-metadata"] = json!({"sha256": Sha256::of(b"other").hex()});
    project.list(&upstream, &[entry]);
    assert_eq!(node.get(&format!("{}.metadata", project.file())).status, 502);
    // A source archive has none unless its index says so.
    let mut source = project.entry(&upstream);
    source["filename"] = "demo-1.0.tar.gz".into();
    let other = Project::new("other", 10);
    other.list(&upstream, &[source]);
    let path = format!("/pypi/files/other/sha256-{}/demo-1.0.tar.gz.metadata", project.sha256);
    assert_eq!(node.get(&path).status, 404);
}

#[test]
fn provenance_is_served() {
    let (upstream, node, project) = start();
    let mut entry = project.entry(&upstream);
    entry["provenance"] = upstream.url("/integrity/demo/provenance").into();
    project.list(&upstream, &[entry]);
    upstream.file("/integrity/demo/provenance", "application/json", r#"{"version":1}"#);
    let listed = page(&node, &project, JSON);
    let link = listed.json()["files"][0]["provenance"].as_str().unwrap().to_owned();
    let answer = node.get(&follow(&node, &project, &link));
    assert_eq!(answer.text(), r#"{"version":1}"#);
    assert_eq!(answer.header("content-type"), "application/vnd.pypi.integrity.v1+json");
    assert!(page(&node, &project, HTML).text().contains(&format!("data-provenance=\"{link}\"")));
    assert!(!listed.text().contains(&upstream.host()));
}

#[test]
fn what_an_index_says_is_passed_on() {
    let (upstream, node, project) = start();
    let mut entry = project.entry(&upstream);
    let host = upstream.host();
    let said = json!({
        "requires-python": ">=3.8,<4", "yanked": "broken \"build\" <x>", "size": 10_000,
        "upload-time": "2024-01-02T03:04:05.678Z", "x-file": {"kept": [1, 2.5, null]},
    });
    entry.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    entry["x-leak"] = upstream.url("/somewhere").into();
    let page_said = json!({
        "meta": {"api-version": "1.4", "tracks": ["https://index.example.org/simple/demo/"], "_last-serial": 7},
        "name": "demo", "files": [entry], "versions": ["0.9", "1.0"],
        "alternate-locations": ["https://other.example.org/simple/demo/"],
        "project-status": {"status": "quarantined", "reason": "malware"},
        "x-page": {"a": "b"}, "x-leak": [{"deep": format!("see http:\\/\\/{host}/x or http://{host}/x")}],
    });
    // As PHP writes JSON: every slash escaped.
    let text = page_said.to_string().replace('/', "\\/");
    upstream.serve(&project.page_path(), File::json(text));
    let got = page(&node, &project, JSON);
    let (text, got) = (got.text(), got.json());
    for (key, value) in said.as_object().unwrap() {
        assert_eq!(got["files"][0][key], *value, "{key}");
    }
    for key in ["meta", "versions", "alternate-locations", "project-status", "x-page", "name"] {
        assert_eq!(got[key], page_said[key], "{key}");
    }
    assert!(!text.contains(&host) && got["x-leak"].is_null(), "{text}");
    let html = page(&node, &project, HTML).text();
    for part in [
        "data-requires-python=\"&gt;=3.8,&lt;4\"",
        "data-yanked=\"broken &quot;build&quot; &lt;x&gt;\"",
        "<meta name=\"pypi:project-status\" content=\"quarantined\">",
        "<meta name=\"pypi:tracks\" content=\"https://index.example.org/simple/demo/\">",
        "<meta name=\"pypi:repository-version\" content=\"1.4\">",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(!html.contains(&host));
    // Yanked files are served.
    assert_eq!(node.get(&project.file()).status, 200);
}

/// A file that its index states no strong digest of: the first use decides what it is.
#[test]
fn without_a_strong_digest_the_first_use_counts() {
    use md5::Digest as _;
    let content = bytes(100_000);
    let md5 = md5::Md5::digest(&content).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let rows = [
        (json!({}), "-".to_owned()),
        (Value::Null, "-".to_owned()),
        (json!({"sha256": "not hex"}), "-".to_owned()),
        (json!({"sha256": "00"}), "-".to_owned()),
        (json!({"crc32": "00000000"}), "-".to_owned()),
        (json!("sha256=00"), "-".to_owned()),
        (json!({"md5": md5}), format!("md5-{md5}")),
    ];
    for (hashes, place) in rows {
        eprintln!("{hashes}");
        let (upstream, node, _) = start();
        let project = Project::of("demo", content.clone()).publish(&upstream);
        let mut entry = project.entry(&upstream);
        entry["hashes"] = hashes;
        project.list(&upstream, &[entry]);
        let link = page(&node, &project, JSON).json()["files"][0]["url"].as_str().unwrap().to_owned();
        let path = follow(&node, &project, &link);
        assert!(path.contains(&format!("/{place}/")), "{path}");
        for cache in ["MISS", "HIT"] {
            let answer = node.get(&path);
            assert_eq!((answer.status, answer.cache()), (200, cache));
            assert!(answer.body == content);
            assert_eq!(answer.header("cache-control"), "public, max-age=600");
            node.settle();
        }
        assert_eq!(upstream.hits(&project.file_path()), 1);

        // The artifact goes, what it was stays known: other bytes are refused, the same ones are welcome.
        node.order(&Order::Purge(format!("sha256:{}", project.sha256)));
        let mut other = content.clone();
        other[0] ^= 1;
        upstream.serve(&project.file_path(), File::new(other.clone()));
        node.assert_cut(&path);
        node.settle();
        assert_eq!(node.artifacts(), 0);
        upstream.serve(&project.file_path(), File::new(content.clone()));
        assert!(node.get(&path).body == content);
        node.settle();

        // An operator who purges the project means it.
        node.order(&Order::Purge("demo".into()));
        assert_eq!(node.artifacts(), 0, "its files go with it");
        upstream.serve(&project.file_path(), File::new(other.clone()));
        if place == "-" {
            assert!(node.get(&path).body == other);
        } else {
            node.assert_cut(&path);
        }
    }
}

/// A weak digest is held to, too.
#[test]
fn a_weak_digest_is_checked() {
    let (upstream, node, project) = start();
    for hashes in [json!({"md5": "0".repeat(32)}), json!({"sha1": "0".repeat(40)})] {
        let mut entry = project.entry(&upstream);
        entry["hashes"] = hashes.clone();
        let other = Project::new("other", 10);
        other.list(&upstream, &[entry]);
        node.order(&Order::Purge("other".into()));
        let link = page(&node, &other, JSON).json()["files"][0]["url"].as_str().unwrap().to_owned();
        node.assert_cut(&follow(&node, &other, &link));
        node.settle();
        assert_eq!(node.artifacts(), 0, "{hashes}");
    }
}

/// Any strong digest names a file; all of them are one file.
#[test]
fn other_strong_digests() {
    let (upstream, node, project) = start();
    let digest = {
        let mut hasher = dpm::base::Hasher::new(dpm::base::Algorithm::Sha512);
        hasher.update(&project.bytes);
        hasher.finish()
    };
    let mut entry = project.entry(&upstream);
    entry["hashes"] = json!({"sha512": digest.hex()});
    let other = Project::new("other", 10);
    other.list(&upstream, &[entry]);
    let path = format!("/pypi/files/other/sha512-{}/{}", digest.hex(), project.filename);
    for cache in ["MISS", "HIT"] {
        assert_eq!(node.get(&path).cache(), cache);
        node.settle();
    }
    // The same file under its other name.
    assert_eq!(node.get(&project.file()).cache(), "HIT");
    assert_eq!(upstream.hits(&project.file_path()), 1);
    upstream.faulty(&project.file_path(), File { ranges: Ranges::Ignored, ..File::new("") }, |_| None);
    assert!(attempt("GET", &node.url(&path), &[]).is_ok_and(|a| a.body == project.bytes));
}
