//! A small upstream on loopback that counts what it is asked, and does wrong what it is told to do wrong.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Log = Arc<Mutex<Vec<Asked>>>;
type Route = Arc<dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;
type Routes = Arc<Mutex<HashMap<String, Route>>>;

/// What was asked: method, path, headers in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
}

impl Asked {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `Range: bytes=first-[last]` or `bytes=-count`; the end is exclusive.
    pub fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (first, last) = self.header("range").strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            return Some((size.saturating_sub(last.parse().ok()?), size));
        }
        Some((first.parse().ok()?, last.parse().map_or(size, |l: usize| l + 1).min(size)))
    }
}

/// A path that stands for all others.
pub const ANY: &str = "*";

/// A file as the upstream has it.
#[derive(Clone, Debug)]
pub struct File {
    pub content_type: &'static str,
    pub bytes: Arc<[u8]>,
    pub ranges: Ranges,
    pub framing: Framing,
    /// Further header lines, each ended.
    pub headers: String,
}

/// Whether `Range` is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    Honoured,
    Ignored,
}

/// How a body's length is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
}

impl File {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            content_type: "application/octet-stream",
            bytes: bytes.into().into(),
            ranges: Ranges::Honoured,
            framing: Framing::Length,
            headers: String::new(),
        }
    }

    pub fn json(text: impl Into<String>) -> Self {
        Self { content_type: super::JSON, ..Self::new(text.into()) }
    }

    pub fn html(text: impl Into<String>) -> Self {
        Self { content_type: "text/html", ..Self::new(text.into()) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// This status line and these header lines, joined by line ends; no body.
    Says(&'static str),
    /// Not one byte, until the other side gives up.
    Silence,
    /// The connection ends after so many bytes of the announced body.
    Cut(usize),
    /// Nothing comes any more after so many bytes of the body, until the other side gives up.
    Hang(usize),
    /// A byte, a pause, a byte.
    Trickle(Duration),
}

/// An HTTP/1.1 server, one thread a connection.
pub struct Upstream {
    address: SocketAddr,
    log: Log,
    routes: Routes,
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (log, routes) = (Log::default(), Routes::default());
        let (their_log, their_routes) = (log.clone(), routes.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (log, routes) = (their_log.clone(), their_routes.clone());
                std::thread::spawn(move || attend(socket, &log, &routes));
            }
        });
        Self { address, log, routes }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `host:port`, which no client may ever see.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How often a path was asked, whatever came of it.
    pub fn hits(&self, path: &str) -> usize {
        self.asked(path).len()
    }

    /// Every question for a path, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|a| a.path == path).cloned().collect()
    }

    /// Questions for anything.
    pub fn total(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Answers a path by this function, which writes the whole answer, head included. [`ANY`] is every path that has
    /// no answer of its own.
    pub fn route(
        &self,
        path: &str,
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) {
        self.routes.lock().unwrap().insert(path.to_owned(), Arc::new(answer));
    }

    /// Nothing is at a path any more.
    pub fn remove(&self, path: &str) {
        self.routes.lock().unwrap().remove(path);
    }

    /// Answers a path with these bytes; honours `Range: bytes=a-b`.
    pub fn file(&self, path: &str, content_type: &'static str, bytes: impl Into<Vec<u8>>) {
        self.serve(path, File { content_type, ..File::new(bytes) });
    }

    /// Answers a path with this file.
    pub fn serve(&self, path: &str, file: File) {
        self.faulty(path, file, |_| None);
    }

    /// Answers every question for a path with the same fault.
    pub fn broken(&self, path: &str, fault: Fault) {
        self.faulty(path, File::new(""), move |_| Some(fault));
    }

    /// Answers a path with this file, and what `fault` says goes wrong with the n-th answer, from 0.
    pub fn faulty(
        &self,
        path: &str,
        file: File,
        fault: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
    ) {
        let count = AtomicUsize::new(0);
        self.route(path, move |asked, out| {
            answer(&file, asked, out, fault(count.fetch_add(1, Ordering::Relaxed)))
        });
    }
}

/// Writes an answer as far as the fault lets it.
pub fn answer(file: &File, asked: &Asked, out: &mut TcpStream, fault: Option<Fault>) -> std::io::Result<()> {
    match fault {
        Some(Fault::Says(head)) => return write!(out, "HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n"),
        Some(Fault::Silence) => return silence(out),
        _ => {}
    }
    let size = file.bytes.len();
    let range = asked.range(size).filter(|_| file.ranges == Ranges::Honoured);
    if range.is_some_and(|(first, end)| first >= end) {
        return write!(out, "HTTP/1.1 416 X\r\ncontent-range: bytes */{size}\r\ncontent-length: 0\r\n\r\n");
    }
    let (first, end) = range.unwrap_or((0, size));
    let status = if range.is_some() { 206 } else { 200 };
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-type: {}\r\n{}", file.content_type, file.headers);
    if file.ranges == Ranges::Honoured {
        head.push_str("accept-ranges: bytes\r\n");
    }
    if range.is_some() {
        head.push_str(&format!("content-range: bytes {first}-{}/{size}\r\n", end - 1));
    }
    match file.framing {
        Framing::Length => head.push_str(&format!("content-length: {}\r\n\r\n", end - first)),
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    out.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let body = &file.bytes[first..end];
    match fault {
        Some(Fault::Cut(at)) => {
            write_body(out, file.framing, &body[..at.min(body.len())])?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Hang(at)) => {
            write_body(out, file.framing, &body[..at.min(body.len())])?;
            silence(out)
        }
        Some(Fault::Trickle(pause)) => {
            for byte in body.chunks(1) {
                write_body(out, file.framing, byte)?;
                std::thread::sleep(pause);
            }
            Ok(())
        }
        _ => {
            write_body(out, file.framing, body)?;
            if file.framing == Framing::Chunked { out.write_all(b"0\r\n\r\n") } else { Ok(()) }
        }
    }
}

fn write_body(out: &mut TcpStream, framing: Framing, bytes: &[u8]) -> std::io::Result<()> {
    for piece in bytes.chunks(64 << 10) {
        match framing {
            Framing::Length => out.write_all(piece)?,
            Framing::Chunked => {
                write!(out, "{:x}\r\n", piece.len())?;
                out.write_all(piece)?;
                out.write_all(b"\r\n")?;
            }
        }
    }
    Ok(())
}

/// Says nothing until the other side closes.
fn silence(out: &mut TcpStream) -> std::io::Result<()> {
    out.set_read_timeout(Some(super::LIMIT))?;
    let _ = out.read(&mut [0; 64]);
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

fn attend(socket: TcpStream, log: &Log, routes: &Routes) {
    let Ok(mut out) = socket.try_clone() else { return };
    let mut reader = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut headers: HashMap<String, String> = HashMap::new();
        loop {
            let mut header = String::new();
            if !reader.read_line(&mut header).is_ok_and(|n| n > 0) {
                return;
            }
            match header.trim_end().split_once(':') {
                // Lines of one name are one list.
                Some((name, value)) => headers
                    .entry(name.to_ascii_lowercase())
                    .and_modify(|list| *list = format!("{list}, {}", value.trim()))
                    .or_insert_with(|| value.trim().to_owned()),
                None => break,
            };
        }
        let asked = Asked { method, path, headers };
        log.lock().unwrap().push(asked.clone());
        let route = {
            let routes = routes.lock().unwrap();
            routes.get(&asked.path).or_else(|| routes.get(ANY)).cloned()
        };
        let done = match route {
            Some(route) => route(&asked, &mut out),
            None => out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        };
        if done.is_err() {
            // The reader holds the socket too: closing one of them would close nothing.
            let _ = out.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
