//! Plain HTTP clients for tests: no retries, no redirects, no decoding.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::LIMIT;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
    /// Why the body broke off, if it did.
    pub broken: Option<String>,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    pub fn cache(&self) -> &str {
        self.header("x-cache")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[])
}

/// One request with these headers. Fails the test when there is no answer at all, or not all of it.
#[track_caller]
pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = attempt(method, url, headers).unwrap_or_else(|e| panic!("{method} {url}: {e}"));
    assert_eq!(answer.broken, None, "{method} {url}");
    answer
}

/// One request whose answer may break off, or never come.
pub fn attempt(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(2 * LIMIT))
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let response = agent.run(builder.body(()).expect("a request")).map_err(|e| e.to_string())?;
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let broken = body.as_reader().read_to_end(&mut bytes).err().map(|e| e.to_string());
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes, broken })
}

/// A socket to a node, for what no client library would send.
pub struct Raw {
    pub socket: TcpStream,
    /// All that came.
    pub got: Vec<u8>,
}

impl Raw {
    pub fn connect(address: std::net::SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        Self { socket, got: Vec::new() }
    }

    /// Sends bytes. A server that has closed already is no failure: what it said can be read.
    pub fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let _ = self.socket.write_all(bytes.as_ref());
        self
    }

    /// `GET path`, and the connection stays open.
    pub fn get(self, path: &str) -> Self {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
    }

    /// Reads until so many bytes of body have come.
    pub fn read_body(&mut self, least: usize) {
        let mut buffer = vec![0; 64 << 10];
        while self.body().len() < least {
            let n = self.socket.read(&mut buffer).expect("more bytes");
            assert!(n > 0, "ended after {} bytes of body", self.body().len());
            self.got.extend_from_slice(&buffer[..n]);
        }
    }

    /// Reads what comes until nothing has come for a moment.
    pub fn read_calm(&mut self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = self.socket.read(&mut buffer) {
            self.got.extend_from_slice(&buffer[..n]);
        }
        self.socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    }

    /// Reads to the end; gives everything as text.
    pub fn read_all(mut self) -> String {
        // A reset after the last byte is an end as well.
        let _ = self.socket.read_to_end(&mut self.got);
        String::from_utf8_lossy(&self.got).into_owned()
    }

    /// What came behind the head.
    pub fn body(&self) -> &[u8] {
        let at = self.got.windows(4).position(|w| w == b"\r\n\r\n");
        at.map_or(&[], |at| &self.got[at + 4..])
    }
}
