//! The room against a raw HTTP server on loopback.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use url::Url;

use super::*;
use crate::base::Secret;

/// Answers one request; `false` closes the connection.
type Handler = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

/// A server that counts and remembers, and says exactly what its handler says.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    fn start(handler: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads, stop) = (Arc::default(), Arc::default(), Arc::default());
        let mut server = Self { address, connections, heads, stop, acceptor: None };
        let (connections, heads, stop) =
            (server.connections.clone(), server.heads.clone(), server.stop.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (handler, heads) = (handler.clone(), heads.clone());
                thread::spawn(move || converse(stream.unwrap(), &*handler, &heads));
            }
        });
        server.acceptor = Some(acceptor);
        server
    }

    /// Says the same to everybody.
    fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| stream.write_all(&answer).is_ok())
    }

    /// Says the same once, and then closes.
    fn saying_and_closing(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| {
            drop(stream.write_all(&answer));
            false
        })
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn site(&self) -> Site {
        Site {
            name: "test".into(),
            url: self.url("/"),
            also: vec![],
            credentials: None,
            protocol: Protocol::Plain,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

fn converse(mut stream: TcpStream, handler: &Handler, heads: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        heads.lock().unwrap().push(head.clone());
        if !handler(&head, &mut stream) {
            drop(stream.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// No test waits longer than this for anything.
const LONGEST: Duration = Duration::from_secs(20);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn options() -> Options {
    Options {
        connect_time: ms(2000),
        answer_time: ms(2000),
        stall_time: ms(2000),
        pauses: [ms(5), ms(10)],
        avoid_time: ms(300),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

fn get(server: &Server, ask: &Ask) -> Result<Answer, UpstreamError> {
    client().open(&server.site(), &server.url("/x?token=hidden"), ask)
}

fn page() -> Ask {
    Ask { page: true, ..Ask::default() }
}

fn read(mut body: Body) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map(|_| bytes)
}

/// The error that ends a body, which must also meet every later read.
fn failure(mut body: Body) -> UpstreamError {
    let mut sink = Vec::new();
    let error = body.read_to_end(&mut sink).expect_err("a body that ends cleanly");
    let error = UpstreamError::of(&error).expect("an error of ours").clone();
    let again = body.read(&mut [0; 8]).expect_err("a failed body that then ends cleanly");
    assert_eq!(UpstreamError::of(&again), Some(&error));
    error
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn a_plain_answer() {
    let server = Server::saying(with_body(
        "ETag: W/\"a\"\r\nLast-Modified: then\r\nContent-Type: text/html\r\nAccept-Ranges: bytes\r\n\
         Cache-Control: max-age=600\r\nAge: 100\r\n",
        b"hello",
    ));
    let ask = Ask { accept: Some("text/html;q=0.1".into()), ..Ask::default() };
    let answer = get(&server, &ask).unwrap();
    let want = Head {
        etag: Some("W/\"a\"".into()),
        last_modified: Some("then".into()),
        content_type: Some("text/html".into()),
        length: Some(5),
        accept_ranges: true,
        max_age: Some(Duration::from_secs(500)),
        compressed: false,
        content_digest: None,
        link: None,
        filters_applied: None,
    };
    assert_eq!((answer.status, &answer.head), (Status::Ok, &want));
    assert_eq!(read(answer.body).unwrap(), b"hello");
    let head = server.heads()[0].to_lowercase();
    for line in ["get /x?token=hidden http/1.1", "accept: text/html;q=0.1", "accept-encoding: identity"] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} is not in {head}");
    }
    assert!(head.contains(&format!("user-agent: dpm/{}\r\n", env!("CARGO_PKG_VERSION"))));
    assert!(!head.contains("authorization"));
}

#[test]
fn statuses() {
    let origin = |server: &Server| format!("http://{}", server.address);
    for code in [404, 410] {
        let server = Server::saying(format!("HTTP/1.1 {code} No\r\nContent-Length: 4\r\n\r\ngone"));
        let answer = get(&server, &Ask::default()).unwrap();
        assert_eq!(answer.status, Status::Missing);
        assert_eq!(read(answer.body).unwrap(), b"");
    }
    for status in [401, 403] {
        let server = Server::saying(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"));
        let error = get(&server, &Ask::default()).unwrap_err();
        assert_eq!(error, UpstreamError::Denied { origin: origin(&server), status });
        assert!(error.to_string().contains("credentials") && !error.retry());
    }
    for (code, asked) in [(204, 1), (304, 1), (400, 1), (451, 1), (500, 3), (501, 1), (502, 3), (504, 3)] {
        let server = Server::saying(format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\n\r\n"));
        let error = get(&server, &Ask::default()).unwrap_err();
        assert_eq!(error, UpstreamError::Status { origin: origin(&server), code });
        assert_eq!(server.heads().len(), asked, "{code}");
        assert_eq!(server.connections(), 1, "{code}");
        assert!(!error.to_string().contains("hidden"));
    }
}

#[test]
fn unchanged() {
    let server = Server::saying("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    let ask = Ask { etag: Some("\"a\"".into()), last_modified: Some("Then".into()), ..Ask::default() };
    let answer = get(&server, &ask).unwrap();
    assert_eq!((answer.status, answer.head.etag.as_deref()), (Status::NotModified, Some("\"a\"")));
    let head = server.heads()[0].to_lowercase();
    assert!(head.contains("if-none-match: \"a\"\r\n") && head.contains("if-modified-since: then\r\n"));
}

#[test]
fn head_gives_the_length_and_no_body() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n");
    let client = client();
    for _ in 0..2 {
        let ask = Ask { method: Method::Head, ..Ask::default() };
        let answer = client.open(&server.site(), &server.url("/"), &ask).unwrap();
        assert_eq!(answer.head.length, Some(99));
        assert_eq!(read(answer.body).unwrap(), b"");
    }
    assert!(server.heads()[0].starts_with("HEAD / "));
    assert_eq!(server.connections(), 1);
}

#[test]
fn connections_are_used_again() {
    let server = Server::start(|head, stream| {
        let answer: &[u8] = match head {
            _ if head.starts_with("GET /missing") => b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
            _ if head.starts_with("GET /chunked") => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer).is_ok()
    });
    let client = client();
    for path in ["/", "/missing", "/chunked", "/", "/exact"] {
        let mut answer = client.open(&server.site(), &server.url(path), &Ask::default()).unwrap();
        match path {
            // Never reads the end itself.
            "/exact" => answer.body.read_exact(&mut [0; 2]).unwrap(),
            _ => drop(read(answer.body).unwrap()),
        }
    }
    client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap();
    assert_eq!(server.connections(), 1);

    let state = &client.origins()[0];
    assert_eq!((state.requests, state.failures, &state.last_error), (6, 0, &None));
    assert_eq!(state.bytes, 8, "what callers read: bodies that nobody wants are not counted");
}

#[test]
fn bodies_that_end_early() {
    let cut = |want| move |e: &UpstreamError| *e == UpstreamError::Truncated { got: 3, want };
    type Check = Box<dyn Fn(&UpstreamError) -> bool>;
    let cases: [(&str, Check); 4] = [
        ("Content-Length: 10\r\n\r\nabc", Box::new(cut(Some(10)))),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Box::new(cut(None))),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\n", Box::new(cut(None))),
        (
            "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
            Box::new(|e| matches!(e, UpstreamError::Protocol { .. })),
        ),
    ];
    for (rest, check) in cases {
        let server = Server::saying_and_closing(format!("HTTP/1.1 200 OK\r\n{rest}"));
        let error = failure(get(&server, &Ask::default()).unwrap().body);
        assert!(check(&error), "{rest:?} gave {error:?}");
    }
    // Until the connection ends: the one framing that cannot tell.
    let server = Server::saying_and_closing("HTTP/1.1 200 OK\r\n\r\nabc");
    let answer = get(&server, &Ask::default()).unwrap();
    assert_eq!(answer.head.length, None);
    assert_eq!(read(answer.body).unwrap(), b"abc");
}

#[test]
fn a_reset_is_no_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
        rx.recv_timeout(LONGEST).unwrap();
        // Closed with the rest of the request unread, which resets the connection.
    });
    let site = Site {
        name: "x".into(),
        url: url.clone(),
        also: vec![],
        credentials: None,
        protocol: Protocol::Plain,
    };
    let mut answer = client().open(&site, &url, &Ask::default()).unwrap();
    answer.body.read_exact(&mut [0; 3]).unwrap();
    tx.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(failure(answer.body), UpstreamError::Truncated { got: 3, want: None });
}

#[test]
fn a_length_that_is_too_small() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef");
    let client = client();
    for _ in 0..2 {
        let answer = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap();
        assert_eq!(read(answer.body).unwrap(), b"abc");
    }
    assert_eq!(server.connections(), 2, "what is left over must not answer the next request");
}

#[test]
fn hangs() {
    let short = Options { answer_time: ms(150), stall_time: ms(150), ..options() };
    let client = Client::new(short).unwrap();
    let timed_out = |error: UpstreamError, phase| {
        assert!(matches!(error, UpstreamError::TimedOut { phase: p, .. } if p == phase), "{error:?}");
        assert!(error.retry());
    };
    let start = Instant::now();
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let server = Server::start(move |_, stream| {
            stream.write_all(begin.as_bytes()).unwrap();
            thread::sleep(ms(1500));
            false
        });
        let error = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap_err();
        timed_out(error, Phase::Answer);
        assert_eq!(server.heads().len(), 1, "a hang is not tried again");
    }
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        thread::sleep(ms(1500));
        false
    });
    let answer = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap();
    timed_out(failure(answer.body), Phase::Body);
    assert!(client.origins().iter().any(|o| o.last_error.as_ref().is_some_and(|(e, _)| e.contains("body"))));
    assert!(start.elapsed() < LONGEST);
}

#[test]
fn trickles() {
    let slow = Options { slow_bytes_per_second: 1000, slow_time: ms(200), ..options() };
    for framing in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1;"] {
        // The second never gives a byte of body: all of it is the name of a chunk's extension.
        let server = Server::start(move |_, stream| {
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()));
            let start = Instant::now();
            while start.elapsed() < LONGEST && stream.write_all(b"a").is_ok() {
                thread::sleep(ms(10));
            }
            false
        });
        let client = Client::new(slow.clone()).unwrap();
        let answer = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap();
        let start = Instant::now();
        assert!(matches!(failure(answer.body), UpstreamError::TooSlow { .. }));
        assert!(start.elapsed() < LONGEST / 2);
    }
}

#[test]
fn a_slow_reader_is_not_the_upstreams_fault() {
    let slow = Options { slow_bytes_per_second: 1 << 20, slow_time: ms(50), ..options() };
    let server = Server::saying(with_body("", &[7; 1 << 20]));
    let client = Client::new(slow).unwrap();
    let mut answer = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap();
    let mut buf = [0; 256 << 10];
    let mut got = 0;
    loop {
        thread::sleep(ms(20));
        match answer.body.read(&mut buf).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, 1 << 20);
}

#[test]
fn compressed_pages() {
    let text = "a page\n".repeat(1000);
    let server = Server::saying(with_body("Content-Encoding: gzip\r\n", &gzip(text.as_bytes())));
    for (ask, encoding) in [(page(), "gzip"), (Ask::default(), "identity")] {
        let answer = get(&server, &ask).unwrap();
        assert!(answer.head.compressed);
        assert_eq!(answer.head.length, None, "the decoded length is unknown");
        assert_eq!(read(answer.body).unwrap(), text.as_bytes());
        let head = server.heads().pop().unwrap().to_lowercase();
        assert!(head.contains(&format!("accept-encoding: {encoding}\r\n")));
    }

    let whole = gzip(text.as_bytes());
    let cut = Server::saying(with_body("Content-Encoding: gzip\r\n", &whole[..whole.len() - 6]));
    assert!(matches!(failure(get(&cut, &page()).unwrap().body), UpstreamError::Encoding { .. }));
    let short =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", whole.len());
    let short = Server::saying_and_closing([short.as_bytes(), &whole[..whole.len() - 6]].concat());
    assert!(matches!(failure(get(&short, &page()).unwrap().body), UpstreamError::Truncated { .. }));
    let junk = Server::saying(with_body("Content-Encoding: gzip\r\n", b"this is no gzip"));
    assert!(matches!(failure(get(&junk, &page()).unwrap().body), UpstreamError::Encoding { .. }));
    let brotli = Server::saying(with_body("Content-Encoding: br\r\n", b"?"));
    assert!(matches!(get(&brotli, &page()), Err(UpstreamError::Encoding { name, .. }) if name == "br"));
}

#[test]
fn a_bomb_goes_off_only_as_far_as_it_is_read() {
    // 256 MiB of zeroes in about 1 MiB.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut io::repeat(0).take(256 << 20), &mut encoder).unwrap();
    let server = Server::saying(with_body("Content-Encoding: gzip\r\n", &encoder.finish().unwrap()));
    let client = client();
    let answer = client.open(&server.site(), &server.url("/"), &page()).unwrap();
    let mut bytes = Vec::new();
    answer.body.take(1 << 20).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert!(client.origins()[0].bytes < 256 << 10, "the rest was never fetched");
}

#[test]
fn ranges() {
    let reply = |status: &str, head: &str, body: &str| {
        Server::saying(format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let ask = Ask {
        range: Some(Range { first: 2, last: Some(4) }),
        if_range: Some("\"a\"".into()),
        page: true,
        ..Ask::default()
    };

    let server = reply("206 Partial", "Content-Range: bytes 2-4/10", "cde");
    let answer = get(&server, &ask).unwrap();
    assert_eq!(answer.status, Status::Partial { first: 2, last: 4, total: Some(10) });
    assert_eq!(answer.head.length, Some(3));
    assert_eq!(read(answer.body).unwrap(), b"cde");
    let head = server.heads()[0].to_lowercase();
    assert!(head.contains("range: bytes=2-4\r\n") && head.contains("if-range: \"a\"\r\n"));

    let whole = reply("200 OK", "X: y", "abcdefghij");
    assert_eq!(get(&whole, &ask).unwrap().status, Status::Ok);

    let bad = [
        reply("206 Partial", "Content-Range: bytes 3-5/10", "def"),
        reply("206 Partial", "Content-Range: bytes 2-4/10", "cd"),
        reply("206 Partial", "X: y", "cde"),
        reply("206 Partial", "Content-Encoding: gzip\r\nContent-Range: bytes 2-4/10", "cde"),
        reply("416 No", "Content-Range: bytes */1", ""),
    ];
    for server in &bad {
        assert!(matches!(get(server, &ask), Err(UpstreamError::BadRange { .. })));
    }
    let unasked = get(&server, &Ask::default());
    assert!(matches!(unasked, Err(UpstreamError::BadRange { .. })));

    // Chunked, so that only the range tells the length.
    for (chunks, whole) in
        [("2\r\ncd\r\n0\r\n\r\n", false), ("4\r\ncdef\r\n0\r\n\r\n", false), ("3\r\ncde\r\n0\r\n\r\n", true)]
    {
        let server = Server::saying(format!(
            "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        assert_eq!(read(get(&server, &ask).unwrap().body).is_ok(), whole, "{chunks:?}");
    }
}

fn redirect(to: impl std::fmt::Display) -> Server {
    Server::saying(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 2\r\n\r\ngo"))
}

#[test]
fn redirects_stay_where_the_configuration_leads() {
    let files = Server::saying(with_body("", b"file"));
    let index = redirect(files.url("/file#part"));
    let home = index.url("/simple/");

    let refused = client().open(&index.site(), &home, &Ask::default()).unwrap_err();
    assert!(
        matches!(refused, UpstreamError::AddressRefused { .. }),
        "same host, private, not named: {refused:?}"
    );
    assert_eq!(files.connections(), 0);

    let credentials = Some(Credentials { username: "u".into(), password: Secret::new("sesame") });
    let site = Site { also: vec![files.url("/")], credentials, ..index.site() };
    let ask = Ask { range: Some(Range { first: 0, last: None }), ..Ask::default() };
    let answer = client().open(&site, &home, &ask).unwrap();
    assert_eq!(answer.url, files.url("/file"));
    assert_eq!(read(answer.body).unwrap(), b"file");
    assert!(index.heads().last().unwrap().to_lowercase().contains("authorization: basic dtpzzxnhbwu=\r\n"));
    let head = files.heads()[0].to_lowercase();
    assert!(!head.contains("authorization") && head.contains("range: bytes=0-"), "{head}");

    let elsewhere =
        ["http://example.org/?q=hidden", "http://169.254.169.254/", "http://u:p@127.0.0.1/", "file:///etc"];
    for to in elsewhere {
        let index = redirect(to);
        let error = client().open(&index.site(), &index.url("/"), &Ask::default()).unwrap_err();
        assert!(matches!(error, UpstreamError::RedirectRefused { .. }), "{to}: {error:?}");
        let text = error.to_string();
        assert!(!text.contains("hidden") && !text.contains("u:p"), "{text}");
    }

    let round = redirect("/again");
    let client = client();
    let error = client.open(&round.site(), &round.url("/"), &Ask::default()).unwrap_err();
    assert!(matches!(error, UpstreamError::RedirectLoop { .. }));
    assert_eq!((round.heads().len(), round.connections()), (6, 1));

    let nowhere = Server::saying("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(get(&nowhere, &Ask::default()), Err(UpstreamError::Protocol { .. })));
}

#[test]
fn unnamed_origins_reach_global_addresses_only() {
    let inside = Server::saying(with_body("", b"secret"));
    let index = Server::saying(with_body("", b"index"));
    let client = client();
    // A connection for somebody who may have it lies in the pool.
    read(client.open(&inside.site(), &inside.url("/"), &Ask::default()).unwrap().body).unwrap();

    let port = inside.address.port();
    for host in ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        let error = client.open(&index.site(), &url, &Ask::default()).unwrap_err();
        assert!(matches!(error, UpstreamError::AddressRefused { .. }), "{host}: {error:?}");
        assert!(!error.retry());
    }
    assert_eq!((inside.heads().len(), inside.connections()), (1, 1));

    for url in ["ftp://127.0.0.1/", "http://u:hidden@127.0.0.1/"] {
        let error = client.open(&index.site(), &url.parse().unwrap(), &Ask::default()).unwrap_err();
        assert!(matches!(error, UpstreamError::BadUrl { .. }) && !error.to_string().contains("hidden"));
    }
}

#[test]
fn https_never_becomes_http() {
    // The pure rule; a TLS server is more than this test is worth.
    let (from, to) = ("https://example.org/a".parse().unwrap(), "http://example.org/b".parse().unwrap());
    let site =
        Site { name: "x".into(), url: from, also: vec![to], credentials: None, protocol: Protocol::Plain };
    let (from, to) = (&site.url, &site.also[0]);
    assert!(client::may_follow(&site, from, from, to).is_err());
    assert!(client::may_follow(&site, from, to, from).is_ok());
}

#[test]
fn busy_upstreams_are_left_alone() {
    for code in [429, 503] {
        let busy = format!("HTTP/1.1 {code} Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n");
        let server = Server::saying(busy);
        let client = client();
        for _ in 0..2 {
            let error = client.open(&server.site(), &server.url("/"), &Ask::default()).unwrap_err();
            assert!(matches!(error, UpstreamError::Busy { .. }) && error.retry());
            assert!(error.retry_after() > Some(Duration::from_secs(590)));
        }
        assert_eq!(server.heads().len(), 1, "the second time nobody asked");
        let resting = client.origins()[0].resting.unwrap();
        assert!(resting > Duration::from_secs(590) && resting <= Duration::from_secs(600));
    }
}

#[test]
fn short_trouble_is_sat_out() {
    let trouble = ["503 Busy\r\nRetry-After: 0", "502 Bad Gateway"];
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, stream| {
        let answer = match trouble.get(count.fetch_add(1, Ordering::SeqCst)) {
            Some(trouble) => format!("HTTP/1.1 {trouble}\r\nContent-Length: 0\r\n\r\n"),
            None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    assert_eq!(read(get(&server, &Ask::default()).unwrap().body).unwrap(), b"ok");
    assert_eq!(server.heads().len(), 3);

    let closing = Server::start(|_, _| false);
    let error = get(&closing, &Ask::default()).unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable { .. }), "{error:?}");
    assert_eq!(closing.heads().len(), 3);
}

#[test]
fn a_dead_origin_is_avoided_and_tried_again() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let url: Url = format!("http://{address}/").parse().unwrap();
    let site = Site {
        name: "x".into(),
        url: url.clone(),
        also: vec![],
        credentials: None,
        protocol: Protocol::Plain,
    };
    let client = client();
    let ask = || client.open(&site, &url, &Ask::default()).map(drop);
    assert!(matches!(ask(), Err(UpstreamError::Unreachable { .. })));
    // Failures four and five.
    assert!(matches!(ask(), Err(UpstreamError::Avoided { .. })));
    assert!(matches!(ask(), Err(UpstreamError::Avoided { .. })));
    assert_eq!(client.origins()[0].requests, 5);
    assert_eq!(client.origins()[0].failures, 5);

    let Ok(listener) = TcpListener::bind(address) else { return };
    let back = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let say =
            |_: &str, s: &mut TcpStream| s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok();
        converse(stream, &say, &Mutex::default());
    });
    let start = Instant::now();
    while ask().is_err() {
        assert!(start.elapsed() < LONGEST);
        thread::sleep(ms(20));
    }
    assert_eq!(client.origins()[0].failures, 0);
    client.close();
    back.join().unwrap();
}

#[test]
fn not_http() {
    let flood = format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("X: {}\r\n", "y".repeat(1000)).repeat(40));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(2000));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20));
    let cases = [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "\0\x01\x02\x03\r\n\r\n",
        &flood,
        &many,
        &endless,
    ];
    for case in cases {
        let server = Server::saying_and_closing(case);
        let error = get(&server, &Ask::default()).unwrap_err();
        let shown = &case[..case.len().min(60)];
        assert!(matches!(error, UpstreamError::Protocol { .. }), "{shown:?} gave {error:?}");
        assert_eq!(server.heads().len(), 1, "{shown:?} was asked again");
    }
}

#[test]
fn closing_interrupts() {
    let server = Server::start(|head, stream| {
        // Without a length, where a cut looks like an end.
        let begin: &[u8] = if head.starts_with("GET /body") { b"HTTP/1.1 200 OK\r\n\r\nabc" } else { b"" };
        stream.write_all(begin).unwrap();
        drop(stream.read(&mut [0]));
        false
    });
    let slow = Options { answer_time: LONGEST, stall_time: LONGEST, ..options() };
    let client = Client::new(slow).unwrap();
    let start = Instant::now();
    let mut answer = client.open(&server.site(), &server.url("/body"), &Ask::default()).unwrap();
    answer.body.read_exact(&mut [0; 3]).unwrap();
    let body = thread::spawn(move || failure(answer.body));
    let head = {
        let (client, site, url) = (client.clone(), server.site(), server.url("/head"));
        thread::spawn(move || client.open(&site, &url, &Ask::default()).map(drop))
    };
    while server.heads().len() < 2 {
        assert!(start.elapsed() < LONGEST);
        thread::sleep(ms(5));
    }
    client.close();
    assert_eq!(body.join().unwrap(), UpstreamError::Closed);
    assert_eq!(head.join().unwrap(), Err(UpstreamError::Closed));
    assert!(start.elapsed() < LONGEST / 2);
    let refused = client.open(&server.site(), &server.url("/"), &Ask::default());
    assert!(matches!(refused, Err(UpstreamError::Closed)));
}

#[test]
fn behind_a_proxy() {
    let proxy = Server::start(|head, stream| match head {
        _ if head.starts_with("CONNECT ") => stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_ok(),
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok(),
    });
    let client = Client::new(Options { proxy: Some(proxy.url("/")), ..options() }).unwrap();
    // A name that nobody but the proxy could resolve.
    let url: Url = "http://files.invalid/x".parse().unwrap();
    let site = Site {
        name: "x".into(),
        url: url.clone(),
        also: vec![],
        credentials: None,
        protocol: Protocol::Plain,
    };
    assert_eq!(read(client.open(&site, &url, &Ask::default()).unwrap().body).unwrap(), b"ok");
    assert!(proxy.heads()[0].starts_with("CONNECT files.invalid:80 "));

    for private in ["http://127.0.0.1:1/".to_owned(), proxy.url("/").to_string()] {
        let refused = client.open(&site, &private.parse().unwrap(), &Ask::default());
        assert!(matches!(refused, Err(UpstreamError::AddressRefused { .. })), "{private}");
    }
    let socks = Options { proxy: Some("socks5://127.0.0.1:1".parse().unwrap()), ..options() };
    assert!(Client::new(socks).is_err());
}
