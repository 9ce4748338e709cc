//! apt, with dpm as its proxy: real apt-get, a repository of the test's own, and what no apt would ask.

mod repository;

use std::collections::HashMap;
use std::io::Write as _;

use dpm::config::{AptSource, Origin};

use crate::clients::process::{Dpm, Home, counterpart, until};
use crate::lan::role::Role;
use crate::support::network::Network;
use crate::support::{Fault, File, Node, Ranges, Raw, Upstream};
use repository::{Apt, Repository};

const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A node in front of nothing but an apt source at `/debian/` of this upstream.
fn node(upstream: &Upstream) -> Node {
    let source = AptSource::from_url(&upstream.url("/debian"), Origin::Flag).expect("a source");
    Node::with(&[&upstream.url("/simple/")], |config, tuning| {
        config.apt = Some(vec![source]);
        tuning.upstream.stall_time = std::time::Duration::from_millis(500);
        tuning.upstream.avoid_time = std::time::Duration::from_millis(1);
    })
}

/// An upstream that has the repository, and knows what has changed since when.
fn upstream(repository: &Repository) -> Upstream {
    let upstream = Upstream::start();
    for (path, bytes) in &repository.files {
        let file = File::new(bytes.clone()).header("last-modified", THEN).header("etag", "\"one\"");
        // As apt writes it.
        upstream.route(&format!("/debian/{}", path.replace('+', "%2b")), move |asked, out| {
            if asked.header("if-modified-since") == THEN || asked.header("if-none-match") == "\"one\"" {
                return write!(out, "HTTP/1.1 304 X\r\nlast-modified: {THEN}\r\netag: \"one\"\r\n\r\n");
            }
            crate::support::upstream::answer(&file, asked, out, None)
        });
    }
    upstream
}

/// An answer to a proxy's request.
struct Answer {
    status: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn code(&self) -> u16 {
        self.status[..3].parse().expect("a code")
    }
}

/// Sends a request line's method and target as they are, with these header lines.
fn ask(node: &Node, what: &str, headers: &str) -> Answer {
    attempt(node, what, headers).unwrap_or_else(|| panic!("{what} has no answer"))
}

/// The same; nothing when the connection ends before a head has come.
fn attempt(node: &Node, what: &str, headers: &str) -> Option<Answer> {
    let mut raw = Raw::connect(node.daemon().address())
        .send(format!("{what} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n"));
    std::io::Read::read_to_end(&mut raw.socket, &mut raw.got).expect("an answer");
    let body = raw.body().to_vec();
    let head = String::from_utf8(raw.got[..raw.got.len() - body.len()].to_vec()).expect("text");
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ").expect("a status").to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Answer { status, headers, body })
}

#[test]
fn apt_get_updates_and_downloads() {
    let repository = Repository::new();
    let upstream = upstream(&repository);
    let node = node(&upstream);
    let (home, source, proxy) = (Home::bare(), upstream.url("/debian"), node.url("/"));
    let first = Apt::new(&home, "first", &source, &proxy, Vec::new());
    first.update();
    for _ in 0..2 {
        first.run(&["download", "demo"]);
        let deb = first.got("demo_1.0+x_all.deb");
        assert!(deb == repository.bytes(&repository.package));
        std::fs::remove_file(home.path("first/demo_1.0+x_all.deb")).expect("it is there");
    }
    let by_hash = format!("/debian/{}", repository.by_hash);
    assert_eq!(upstream.hits(&by_hash), 1);
    assert_eq!(upstream.hits("/debian/dists/test/main/binary-amd64/Packages"), 0);

    // What has a digest for a name is stored; the rest is asked for again, and told to be as it was.
    let text = first.update();
    assert!(text.contains("Hit:"), "{text}");
    let release = upstream.asked("/debian/dists/test/Release");
    assert_eq!((release.len(), release[1].header("if-modified-since")), (2, THEN));
    assert_eq!(release[1].header("cache-control"), "max-age=0");
    upstream.remove(&by_hash);
    Apt::new(&home, "second", &source, &proxy, Vec::new()).update();
    assert_eq!(upstream.hits(&by_hash), 1);
    assert_eq!(upstream.hits("/debian/dists/test/main/binary-amd64/Packages"), 0);
    let url = upstream.url(&by_hash);
    let stored = ask(&node, &format!("GET {url}"), "");
    assert_eq!((stored.code(), stored.header("x-cache")), (200, "HIT"));
    assert!(stored.body == repository.bytes(&repository.by_hash));
    let part = ask(&node, &format!("GET {url}"), "range: bytes=3-5\r\n");
    assert_eq!((part.code(), part.body.as_slice()), (206, &stored.body[3..6]));
    let head = ask(&node, &format!("HEAD {url}"), "");
    assert_eq!((head.code(), head.header("content-length")), (200, stored.body.len().to_string().as_str()));

    // Stored or not, it is only its source that it is given for.
    let other = Upstream::start();
    assert_eq!(ask(&node, &format!("GET {}", other.url(&by_hash)), "").code(), 403);
    assert_eq!(other.total(), 0);
}

#[test]
fn a_neighbour_gives_what_it_has_by_hash() {
    let repository = Repository::new();
    let upstream = upstream(&repository);
    let source = AptSource::from_url(&upstream.url("/debian"), Origin::Flag).expect("a source");
    let private = AptSource { private: true, ..source.clone() };
    let path = format!("/debian/{}", repository.by_hash);
    for (source, second, hits) in [(private, "MISS", 2), (source, "PEER", 3)] {
        let nodes = Node::village_with(2, &upstream.url("/simple/"), |_, config, _| {
            config.apt = Some(vec![source.clone()]);
        });
        for (node, cache) in nodes.iter().zip(["MISS", second]) {
            let answer = ask(node, &format!("GET {}", upstream.url(&path)), "");
            assert_eq!((answer.code(), answer.header("x-cache")), (200, cache));
            assert!(answer.body == repository.bytes(&repository.by_hash));
            node.settle();
        }
        assert_eq!(upstream.hits(&path), hits);
    }
}

#[test]
fn it_is_no_open_proxy() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    for upstream in [&upstream, &other] {
        upstream.file("/debian/x", "text/plain", "x");
        upstream.file("/secret", "text/plain", "secret");
    }
    let node = node(&upstream);
    let (host, stranger) = (upstream.host(), other.host());
    let cases = [
        (format!("GET http://{stranger}/debian/x"), 403),
        (format!("HEAD http://{stranger}/debian/x"), 403),
        (format!("GET http://{host}/secret"), 403),
        (format!("GET http://{host}/debian/../secret"), 400),
        (format!("GET http://{host}/debian/%2e%2e/secret"), 400),
        (format!("GET http://{host}/debian/x?y"), 400),
        (format!("GET http://u:p@{host}/debian/x"), 400),
        (format!("GET http://{host}@{stranger}/debian/x"), 400),
        (format!("GET https://{host}/debian/x"), 403),
        (format!("GET ftp://{host}/debian/x"), 403),
        (format!("POST http://{host}/debian/x"), 405),
        (format!("CONNECT {host}"), 405),
        (format!("CONNECT {stranger}"), 405),
    ];
    for (what, code) in cases {
        let answer = ask(&node, &what, "");
        assert_eq!(answer.code(), code, "{what}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!((upstream.total(), other.total()), (0, 0), "nobody was connected to");

    let answer = ask(&node, &format!("GET http://{stranger}/debian/dists/x/InRelease"), "");
    let text = String::from_utf8(answer.body).expect("text");
    assert!(text.contains(&format!("[apt]\nupstreams = [\"http://{stranger}/debian/\"]")), "{text}");
    let answer = ask(&node, &format!("CONNECT {stranger}"), "");
    assert!(String::from_utf8(answer.body).expect("text").contains("Acquire::https::Proxy \"DIRECT\";"));
    assert_eq!(ask(&node, &format!("GET http://{host}/debian/x"), "").body, b"x");
    // A target that is this very box is no proxy's business.
    assert_eq!(ask(&node, &format!("GET {}", node.url("/healthz")), "").body, b"ok\n");
}

#[test]
fn what_has_no_digest_is_handed_through() {
    let upstream = Upstream::start();
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    let file = || {
        let file = File { content_type: "application/x-debian", ..File::new(bytes.clone()) };
        file.header("last-modified", THEN).header("etag", "\"one\"")
    };
    upstream.serve("/debian/x.deb", file());
    let node = node(&upstream);
    let get = |path: &str, headers: &str| ask(&node, &format!("GET {}", upstream.url(path)), headers);
    for _ in 0..2 {
        let whole = get("/debian/x.deb", "");
        assert_eq!((whole.code(), whole.header("x-cache")), (200, "BYPASS"));
        let kept = [("content-type", "application/x-debian"), ("last-modified", THEN), ("etag", "\"one\"")];
        for (name, value) in
            kept.into_iter().chain([("content-length", "800000"), ("accept-ranges", "bytes")])
        {
            assert_eq!(whole.header(name), value, "{name}");
        }
        assert!(whole.body == bytes);
    }
    assert_eq!((upstream.hits("/debian/x.deb"), node.artifacts()), (2, 0));

    let part = get("/debian/x.deb", &format!("range: bytes=700000-\r\nif-range: {THEN}\r\n"));
    assert_eq!((part.code(), part.header("content-range")), (206, "bytes 700000-799999/800000"));
    assert!(part.body == bytes[700_000..]);
    assert_eq!(upstream.asked("/debian/x.deb")[2].header("if-range"), THEN);
    // More than there is: all of it, which is as good an answer as any.
    let beyond = get("/debian/x.deb", "range: bytes=800000-\r\n");
    assert!(beyond.code() == 200 && beyond.body == bytes);
    upstream.serve("/debian/all.deb", File { ranges: Ranges::Ignored, ..file() });
    assert_eq!(get("/debian/all.deb", "range: bytes=5-\r\n").code(), 200);
    let head = ask(&node, &format!("HEAD {}", upstream.url("/debian/x.deb")), "");
    assert_eq!((head.code(), head.header("content-length"), head.body.len()), (200, "800000", 0));

    // A name for a format is no reason to unpack.
    upstream.serve("/debian/Packages.gz", File::new("packed").header("content-encoding", "x-gzip"));
    let packed = get("/debian/Packages.gz", "");
    assert_eq!((packed.body.as_slice(), packed.header("content-encoding")), (&b"packed"[..], ""));
    assert_eq!(upstream.asked("/debian/Packages.gz")[0].header("accept-encoding"), "identity");

    let missing = get("/debian/none", "");
    assert_eq!((missing.code(), missing.header("x-cache")), (404, "BYPASS"));
    upstream.broken("/debian/down", Fault::Says("500 X"));
    let down = get("/debian/down", "");
    assert_eq!((down.code(), down.header("retry-after")), (502, "5"));
    upstream.faulty("/debian/cut", file(), |_| Some(Fault::Cut(300_000)));
    let cut = get("/debian/cut", "");
    assert!(cut.code() == 200 && cut.body.len() < bytes.len(), "{}", cut.body.len());
    upstream.serve("/debian/chunked", File { framing: crate::support::Framing::Chunked, ..file() });
    assert_eq!(get("/debian/chunked", "").header("transfer-encoding"), "chunked");
}

#[test]
fn a_wrong_file_by_hash_is_not_given() {
    let upstream = Upstream::start();
    let digest = dpm::base::Sha256::of(b"right");
    let path = format!("/debian/dists/x/by-hash/SHA256/{digest}");
    upstream.file(&path, "text/plain", "wrong");
    let node = node(&upstream);
    let answer = attempt(&node, &format!("GET {}", upstream.url(&path)), "");
    assert!(answer.is_none_or(|answer| answer.code() == 502 || answer.body.is_empty()));
    node.settle();
    assert_eq!(node.artifacts(), 0);
    upstream.remove(&path);
    assert_eq!(ask(&node, &format!("GET {}", upstream.url(&path)), "").code(), 404, "apt asks by name then");
}

#[test]
fn a_machine_that_looks_for_a_proxy_is_told() {
    let upstream = Upstream::start();
    let mut node = node(&upstream);
    let home = Home::bare();
    let apt = Apt::new(&home, "apt", &upstream.url("/debian"), "DIRECT", Vec::new());
    let text = apt.fails(&node.url("/"));
    assert!(text.contains("406  Usage Information"), "{text}");
    let of_apt = "user-agent: Debian APT-HTTP/1.3 (2.6.1)\r\n";
    assert_eq!(ask(&node, "GET /", of_apt).status, "406 Usage Information");
    assert_eq!(ask(&node, "GET /", "user-agent: Mozilla/5.0\r\n").code(), 200);
    node.restart(|config, _| config.apt = Some(Vec::new()));
    assert_eq!(ask(&node, "GET /", of_apt).code(), 200, "there is nothing to be had here");
}

/// A box tells the LAN that it is an apt proxy; what is found there works.
#[test]
fn the_lan_finds_it() {
    /// Says where the first apt proxy is that mDNS tells of.
    const FIND: &str = r#"
import queue, sys
from zeroconf import ServiceBrowser, ServiceListener, Zeroconf
found = queue.Queue()
class Listener(ServiceListener):
    def add_service(self, zc, kind, name):
        info = zc.get_service_info(kind, name, timeout=9000)
        if info: found.put((info.parsed_addresses(), info.port))
    def update_service(self, zc, kind, name): pass
    def remove_service(self, zc, kind, name): pass
zc = Zeroconf()
ServiceBrowser(zc, "_apt_proxy._tcp.local.", Listener())
addresses, port = found.get(timeout=30)
print("proxy", next(a for a in addresses if "." in a), port, flush=True)
sys.stdin.read()
zc.close()
"#;
    let Some(network) = Network::start() else { return };
    let (here, desktop) = (network.machine(&["10.7.0.1/24"]), network.machine(&["10.7.0.2/24"]));
    let outside = network.machine(&["198.51.100.1/24"]);
    here.script("ip route add 198.51.100.0/24 dev eth0");
    outside.script("ip route add 10.7.0.0/24 dev eth0");
    let home = Home::bare();
    let repository = Repository::new();
    repository.write(&home.path("www/debian"));
    let mut server = outside.command(counterpart("pip", "python"));
    server.args(["-u", "-m", "http.server", "8080", "--bind", "198.51.100.1"]).current_dir(home.path("www"));
    let server = Role::of(server);
    server.hear("where it is", |line| line.starts_with("Serving").then_some(()));

    let index = "[[pypi]]\nurl = \"http://198.51.100.1:8080/simple/\"\n";
    let source = "http://198.51.100.1:8080/debian";
    home.write("dpm.toml", &format!("[apt]\nupstreams = [\"{source}\"]\n{index}"));
    let config = home.path("dpm.toml").display().to_string();
    let dpm = Dpm::serve_at(&here, &home, &["--lan", "--config", &config]);
    let mut find = desktop.command(counterpart("zeroconf", "python"));
    find.args(["-c", FIND]);
    let find = Role::of(find);
    let found = find.hear("a proxy", |line| line.strip_prefix("proxy ").map(str::to_owned));
    assert_eq!(found, "10.7.0.1 3142");
    find.end();
    let proxy = format!("http://{}/", found.replace(' ', ":"));
    let apt = Apt::new(&home, "apt", source, &proxy, desktop.enter());
    apt.update();
    apt.run(&["download", "demo"]);
    assert!(apt.got("demo_1.0+x_all.deb") == repository.bytes(&repository.package));
    until("it is noted", || (dpm.status()["answers"]["bypass"]["answers"].as_u64()? > 0).then_some(()));
    assert_eq!(dpm.status()["answers"]["miss"]["answers"], 1, "the list of packages, by its digest");
    assert!(dpm.order(&["status"]).contains("apt      http://198.51.100.1:8080/debian/"));
    dpm.stop();
}
