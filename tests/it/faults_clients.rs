//! What clients can do wrong: the node answers what it can, and everybody else is served meanwhile.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use dpm::base::limits;

use crate::support::{Node, Project, Raw, Upstream, request, until};

fn start() -> (Upstream, Node, Project) {
    let upstream = Upstream::start();
    let node = Node::new(&upstream.url("/simple/"));
    let project = Project::new("demo", 300_000).publish(&upstream);
    (upstream, node, project)
}

#[track_caller]
fn assert_fine(node: &Node, project: &Project) {
    let answer = node.get(&project.file());
    assert_eq!(answer.status, 200);
    assert!(answer.body == project.bytes);
}

#[test]
fn vanishing_in_the_middle() {
    let (_upstream, node, project) = start();
    assert_fine(&node, &project);
    node.settle();
    for read in [0, 1, 100_000] {
        let mut raw = Raw::connect(node.daemon().address()).get(&project.file());
        raw.read_body(read);
        drop(raw);
    }
    until("all answers have ended", || node.metric("dpm_open_answers") == 1);
    assert_fine(&node, &project);
}

#[test]
fn no_sense_at_all() {
    let (_upstream, node, project) = start();
    let address = node.daemon().address();
    let long = "x".repeat(20 << 10);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let path = "y".repeat(limits::PATH_BYTES);
    let rows = [
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        ("\0\x01\x02\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET /\x7f HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        (format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), "414"),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), "4"),
        ("CONNECT other:80 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "405"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "405"),
        ("BREW / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "405"),
    ];
    for (text, status) in rows {
        let answer = Raw::connect(address).send(&text).read_all();
        let start = &text[..text.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{start:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1);
    }
    assert_fine(&node, &project);
}

#[test]
fn other_methods() {
    let (upstream, node, project) = start();
    let url = node.url(&project.page());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = request(method, &url, &[("content-length", "0")]);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    // A body that nobody asked for, and the next request behind it.
    let upload = "POST /pypi/legacy/ HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let next = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = Raw::connect(node.daemon().address()).send(format!("{upload}{next}")).read_all();
    assert!(answers.starts_with("HTTP/1.1 405 ") && !answers.contains("hello"), "{answers}");
    assert_eq!(upstream.total(), 0);
    assert_fine(&node, &project);
}

#[test]
fn old_and_hasty_clients() {
    let (_upstream, node, project) = start();
    assert_fine(&node, &project);
    let address = node.daemon().address();
    let old = Raw::connect(address).send("GET /healthz HTTP/1.0\r\n\r\n").read_all();
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("\r\n\r\nok\n"), "{old}");
    let mut old = Raw::connect(address)
        .send(format!("GET {} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", project.file()));
    old.read_body(project.bytes.len());
    assert!(old.body() == project.bytes);

    // Twenty requests before the first answer is read: answered in order.
    let paths = ["/healthz", "/pypi/simple/demo/", "/nothing", "/pypi/files/demo/-/../x"];
    let all: String =
        (0..20).map(|n| format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", paths[n % paths.len()])).collect();
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = Raw::connect(address).send(all + last).read_all();
    let got: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
    let want: Vec<_> = ["200", "200", "404", "400"].into_iter().cycle().take(20).chain(["200"]).collect();
    assert_eq!(got, want);

    // An answer does not wait for the rest of the next request.
    let mut one = Raw::connect(address).send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea");
    one.read_body(3);
    // A request in small pieces.
    let mut slow = Raw::connect(address);
    for byte in "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".bytes() {
        slow.socket.write_all(&[byte]).unwrap();
    }
    assert!(slow.read_all().starts_with("HTTP/1.1 200 "));
    // An address with a scheme, as proxies are asked: ours (RFC 9112 §3.2.2), and another's.
    for (at, status) in [(address.to_string(), "200"), ("other.example.org".into(), "403")] {
        let full = format!("GET http://{at}/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(Raw::connect(address).send(full).read_all().starts_with(&format!("HTTP/1.1 {status} ")));
    }
}

#[test]
fn impossible_ranges() {
    let (_upstream, node, project) = start();
    let (url, size) = (node.url(&project.file()), project.bytes.len());
    // Of a file that is being fetched, and of a stored one.
    for stored in [false, true] {
        if stored {
            assert_fine(&node, &project);
            node.settle();
        }
        for range in ["bytes=300000-", "bytes=99999999999999999999-", "bytes=-0", "bytes=300000-300001"] {
            let answer = request("GET", &url, &[("range", range)]);
            let what = answer.header("content-range");
            assert_eq!((answer.status, what), (416, "bytes */300000"), "{range}");
        }
        for range in ["bytes=5-4", "bytes=a-b", "lines=1-2", "bytes=", "bytes=0-1,3-4", "bytes=--1", "x"] {
            let answer = request("GET", &url, &[("range", range)]);
            assert_eq!((answer.status, answer.body.len()), (200, size), "{range}");
        }
    }
}

#[test]
fn saying_nothing_keeps_nobody_else_out() {
    let (_upstream, node, project) = start();
    let silent: Vec<_> = (0..50).map(|_| Raw::connect(node.daemon().address())).collect();
    let halves: Vec<_> =
        (0..50).map(|_| Raw::connect(node.daemon().address()).send("GET /healthz HT")).collect();
    for _ in 0..3 {
        assert_fine(&node, &project);
    }
    drop((silent, halves));
    assert_fine(&node, &project);
}

/// More connections than there are permits: the rest waits in the kernel and gets its turn.
#[test]
fn more_connections_than_permits() {
    const CLIENTS: usize = limits::CONNECTIONS + 76;
    raise_open_files();
    let (_upstream, node, project) = start();
    assert_fine(&node, &project);
    let address: SocketAddr = node.daemon().address();
    let mut idle: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    // One that came last, and has something to ask.
    let waiting = Raw::connect(address).send("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    // One of the first still gets its answer.
    let first = Raw { socket: idle.remove(0), got: Vec::new() };
    first.socket.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    let answer = first.send("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").read_all();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The others leave: whoever waited is served.
    drop(idle);
    assert!(waiting.read_all().starts_with("HTTP/1.1 200 "));
    assert_fine(&node, &project);
}

fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it cannot be raised the test says so itself.
    let _ = setrlimit(Resource::Nofile, limit);
}
