//! A small upstream on loopback that counts what it is asked. Extended with faults by the tests that need them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Hits = Arc<Mutex<HashMap<String, usize>>>;
type Route = Arc<dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

/// What was asked: method, path, headers in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// An HTTP/1.1 server, one thread a connection.
pub struct Upstream {
    address: SocketAddr,
    hits: Hits,
    routes: Arc<Mutex<HashMap<String, Route>>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let hits = Hits::default();
        let routes: Arc<Mutex<HashMap<String, Route>>> = Arc::default();
        let (their_hits, their_routes) = (hits.clone(), routes.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (hits, routes) = (their_hits.clone(), their_routes.clone());
                std::thread::spawn(move || attend(socket, &hits, &routes));
            }
        });
        Self { address, hits, routes }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often a path was asked, whatever came of it.
    pub fn hits(&self, path: &str) -> usize {
        self.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Answers a path by this function, which writes the whole answer, head included.
    pub fn route(
        &self,
        path: &str,
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) {
        self.routes.lock().unwrap().insert(path.to_owned(), Arc::new(answer));
    }

    /// Answers a path with these bytes; honours `Range: bytes=a-b`.
    pub fn file(&self, path: &str, content_type: &'static str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.route(path, move |asked, out| {
            let size = bytes.len();
            let range = asked.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
            let head = asked.method == "HEAD";
            let (status, first, end) = match range {
                Some((first, last)) => {
                    let first: usize = first.parse().unwrap_or(0);
                    (206, first, last.parse().map_or(size, |l: usize| l + 1).min(size))
                }
                None => (200, 0, size),
            };
            write!(out, "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n", end - first)?;
            if status == 206 {
                write!(out, "content-range: bytes {first}-{}/{size}\r\n", end - 1)?;
            }
            out.write_all(b"\r\n")?;
            if head { Ok(()) } else { out.write_all(&bytes[first..end]) }
        });
    }
}

fn attend(socket: TcpStream, hits: &Hits, routes: &Mutex<HashMap<String, Route>>) {
    let Ok(mut out) = socket.try_clone() else { return };
    let mut reader = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            if !reader.read_line(&mut header).is_ok_and(|n| n > 0) {
                return;
            }
            match header.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        *hits.lock().unwrap().entry(path.clone()).or_default() += 1;
        let route = routes.lock().unwrap().get(&path).cloned();
        let asked = Asked { method, path, headers };
        let done = match route {
            Some(route) => route(&asked, &mut out),
            None => out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        };
        if done.is_err() {
            return;
        }
    }
}
