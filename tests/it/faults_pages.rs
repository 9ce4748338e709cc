//! Pages and paths that mean harm: nothing of them leaves the store's folder, a header or memory's bounds.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Fault, File, Framing, JSON, Node, Project, Raw, Upstream, get, request, until};

fn start() -> (Upstream, Node, Project) {
    let upstream = Upstream::start();
    let node = Node::hasty(&upstream.url("/simple/"));
    let project = Project::new("demo", 10_000).publish(&upstream);
    (upstream, node, project)
}

const HOSTILE: [&str; 14] = [
    "../../../etc/passwd",
    "..",
    ".",
    ".hidden",
    "a/b.whl",
    "a\\b.whl",
    "..\\..\\x.whl",
    "nul\0.whl",
    "line\r\nset-cookie: a=b.whl",
    "bell\u{7}.whl",
    "next\u{85}line.whl",
    "x.whl.metadata",
    "x.whl.provenance",
    "",
];

#[test]
fn hostile_names_in_a_page_are_left_out() {
    let (upstream, node, project) = start();
    let entry = |name: &str, url: &str| json!({"filename": name, "url": url, "hashes": {"sha256": project.sha256.hex()}, "size": 10_000});
    let good = project.entry(&upstream);
    let address = upstream.url(&project.file_path());
    let mut files: Vec<_> = HOSTILE.iter().map(|name| entry(name, &address)).collect();
    files.push(entry(&"x".repeat(256), &address));
    for url in ["javascript:alert(1)", "file:///etc/passwd", "ftp://example.org/x", "http://", "data:,x"] {
        files.push(entry("scheme.whl", url));
    }
    files.push(good.clone());
    // The second of a name could be meant for whoever looks at the other form.
    files.push(entry(&project.filename, &upstream.url("/f/other")));
    // Odd, but one harmless segment each: they stay, escaped.
    let odd = ["%2e%2e%2fx.whl", "a%00b.whl", "<script>alert(1).whl", "\"onload=x.whl", "ä b?c#d.whl"];
    files.extend(odd.iter().map(|name| entry(name, &address)));
    project.list(&upstream, &files);

    let page = request("GET", &node.url(&project.page()), &[("accept", JSON)]).json();
    let listed: Vec<_> =
        page["files"].as_array().unwrap().iter().map(|f| f["filename"].as_str().unwrap()).collect();
    assert_eq!(listed, [&[project.filename.as_str()][..], &odd].concat().as_slice());
    let html = node.get(&project.page()).text();
    assert!(
        !html.contains("<script") && !html.contains("\"onload") && !html.contains("javascript:"),
        "{html}"
    );
    for file in page["files"].as_array().unwrap() {
        let base = url::Url::parse(&node.url(&project.page())).unwrap();
        let link = base.join(file["url"].as_str().unwrap()).unwrap();
        assert!(link.path().starts_with("/pypi/files/demo/sha256-"), "{link}");
        assert!(get(link.as_str()).body == project.bytes, "{link}");
    }
}

#[test]
fn hostile_paths() {
    let (upstream, node, project) = start();
    node.get(&project.file());
    node.settle();
    let total = upstream.total();
    let sha = project.sha256;
    let bad = [
        "/pypi/files/../../etc/passwd".to_owned(),
        "/pypi/files/demo/-/../../../../etc/passwd".into(),
        "/pypi/%2F%2F..%2F..%2F..%2Fetc%2Fpasswd".into(),
        "/pypi//..//..//etc/passwd".into(),
        "/pypi/files/demo/-/%2e%2e".into(),
        "/pypi/files/demo/-/%2e%2e%2fx".into(),
        "/pypi/files/demo/-/..%5cx".into(),
        "/pypi/files/demo/-/x%00.whl".into(),
        "/pypi/files/demo/-/x%0d%0aset-cookie:%20a=b".into(),
        "/pypi/simple/demo%0d%0aset-cookie:%20a=b".into(),
        "/pypi/simple/%00/".into(),
        "/pypi/simple/%".into(),
        "/pypi/simple/%ff/".into(),
        "/pypi/simple/..%2fadmin/".into(),
        format!("/pypi/files/demo/sha256-{sha}/%2e%2e/x"),
    ];
    for path in &bad {
        let answer = Raw::connect(node.daemon().address())
            .send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .read_all();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("\nset-cookie"), "{path}: {answer}");
    }
    let unknown = [
        "/../../etc/passwd".to_owned(),
        "/%2F%2F..%2F..".into(),
        "//etc/passwd".into(),
        "/pypi".into(),
        "/pypi/".into(),
        "/pypi/simple/%C3%A9/".into(),
        "/pypi/simple/-x-/".into(),
        format!("/pypi/files/demo/sha256-{}/x.whl", "0".repeat(63)),
        format!("/pypi/files/demo/sha256-{}/x.whl", "g".repeat(64)),
        format!("/pypi/files/demo/sha1-{sha}/x.whl"),
        format!("/pypi/files/De.mo/sha256-{sha}/{}", project.filename),
    ];
    for path in &unknown {
        let answer = Raw::connect(node.daemon().address())
            .send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .read_all();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    assert_eq!(upstream.total(), total, "nobody was asked for any of it");
    // A query never reaches another answer's key, nor the headers of a redirect.
    let split = "/pypi/simple/Demo/?x=%0d%0aset-cookie:%20a=b";
    assert_eq!(node.get(split).header("location"), "../demo/?x=%0d%0aset-cookie:%20a=b");
    assert_eq!(node.get(&project.file()).cache(), "HIT");
}

/// A digest in a link is a promise of the index, not of whoever writes the link.
#[test]
fn a_link_cannot_be_made_up() {
    let (upstream, node, project) = start();
    let other = format!("/pypi/files/demo/sha256-{}/{}", "0".repeat(64), project.filename);
    assert_eq!(node.get(&other).status, 404);
    let unlisted = format!("/pypi/files/demo/sha256-{}/other-1.0-py3-none-any.whl", project.sha256);
    assert_eq!(node.get(&unlisted).status, 404);
    assert_eq!(upstream.hits(&project.file_path()), 0);
}

#[test]
fn pages_that_are_none() {
    let (upstream, node, project) = start();
    let deep = format!("{{\"name\":\"demo\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let rows: Vec<(&str, File)> = vec![
        ("empty", File::json("")),
        ("not JSON", File::json("<html>maintenance</html>")),
        ("cut off", File::json(&project.page_of(&[project.entry(&upstream)])[..100])),
        ("no files", File::json(r#"{"message":"over quota"}"#)),
        ("files of another shape", File::json(r#"{"files":{}}"#)),
        ("another project", File::json(r#"{"name":"other","files":[]}"#)),
        ("another version", File::json(r#"{"meta":{"api-version":"2.0"},"name":"demo","files":[]}"#)),
        ("deep", File::json(deep)),
        ("not UTF-8", File { content_type: JSON, ..File::new(b"{\"files\":[],\"x\":\"\xff\"}".to_vec()) }),
        ("an image", File { content_type: "image/png", ..File::new(b"\x89PNG\r\n".to_vec()) }),
        ("broken gzip", File::json("not gzip").header("content-encoding", "gzip")),
        ("brotli", File::json("x").header("content-encoding", "br")),
        ("a bomb", File { content_type: JSON, ..File::new(bomb()) }.header("content-encoding", "gzip")),
    ];
    for (name, file) in rows {
        upstream.serve(&project.page_path(), file);
        for path in [project.page(), project.file()] {
            let answer = node.get(&path);
            assert_eq!(answer.status, 502, "{name}: {}", answer.text());
            assert!(!answer.header("retry-after").is_empty());
        }
    }
    // Cut off on the way, in either framing: never half a page.
    for framing in [Framing::Length, Framing::Chunked] {
        let file = File { framing, ..File::json(project.page_of(&[project.entry(&upstream)])) };
        upstream.faulty(&project.page_path(), file, |_| Some(Fault::Cut(80)));
        assert_eq!(node.get(&project.page()).status, 502);
    }
    let project = project.publish(&upstream);
    assert_eq!(node.get(&project.page()).status, 200);
    assert!(node.get(&project.file()).body == project.bytes);
}

/// 200 MB of blanks in 200 KB.
fn bomb() -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..200 {
        packer.write_all(&blanks).unwrap();
    }
    packer.finish().unwrap()
}

#[test]
fn odd_fields_cost_only_themselves() {
    let (upstream, node, project) = start();
    let mut odd = project.entry(&upstream);
    odd["size"] = json!("10000");
    odd["yanked"] = json!({"a": 1});
    odd["requires-python"] = json!(3);
    odd["core-metadata"] = json!([1]);
    odd["upload-time"] = json!(false);
    odd["x"] = json!(1e308);
    upstream.serve(
        &project.page_path(),
        File::json(project.page_of(&[odd, json!(null), json!(1), json!([]), json!({"filename": 1})])),
    );
    let page = request("GET", &node.url(&project.page()), &[("accept", JSON)]);
    assert_eq!(page.json()["files"].as_array().unwrap().len(), 1, "{}", page.text());
    assert!(node.get(&project.file()).body == project.bytes);
    let deep = format!("{{\"files\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    upstream.serve("/simple/deep/", File::json(deep));
    let page = request("GET", &node.url("/pypi/simple/deep/"), &[("accept", JSON)]);
    assert_eq!(page.json()["files"], json!([]));
}

/// `dpm serve`, in a process of its own, so that its memory can be told from that of the tests.
struct Served {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Served {
    fn start(upstream: &Upstream) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dpm"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .args(["--upstream", &format!("pypi={}", upstream.url("/simple/"))])
            .env_clear()
            .env("HOME", dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dpm serve starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, rest) = line.split_once("clients: http://")?;
            Some(rest.split('/').next()?.to_owned())
        });
        // It must never wait for somebody to read its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens"), dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Most memory it ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        assert!(self.dir.path().exists());
    }
}

#[test]
fn a_page_of_100_megabytes_is_refused_within_bounds() {
    const PAGES: usize = 4;
    let upstream = Upstream::start();
    let project = Project::new("demo", 10_000).publish(&upstream);
    for n in 0..PAGES {
        upstream.route(&format!("/simple/huge-{n}/"), |_, out| {
            write!(out, "HTTP/1.1 200 X\r\ncontent-type: {JSON}\r\nconnection: close\r\n\r\n{{\"files\":[")?;
            let entry = format!("{{\"filename\":\"{}\",\"url\":\"x\"}},", "x".repeat(200)).repeat(400);
            for _ in 0..(100 << 20) / entry.len() {
                out.write_all(entry.as_bytes())?;
            }
            out.write_all(b"{}]}")?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        });
    }
    let served = Served::start(&upstream);
    assert!(get(&served.url(&project.file())).body == project.bytes);
    let before = served.peak_mib();
    // Several at once: they take turns with memory.
    std::thread::scope(|scope| {
        for n in 0..PAGES {
            let url = served.url(&format!("/pypi/simple/huge-{n}/"));
            scope.spawn(move || {
                let answer = get(&url);
                assert_eq!(answer.status, 502, "{}", answer.text());
            });
        }
    });
    let after = served.peak_mib();
    eprintln!("peak {before} MiB before, {after} MiB after");
    // One page of the largest size that is taken (48 MiB), twice while its buffer grows, and 4 MiB of each other.
    assert!(after < before + 128, "{before} MiB, then {after} MiB");
    until("it is fine", || get(&served.url(&project.page())).status == 200);
}
