//! The control socket: orders over HTTP on a Unix socket that only its owner can open.
//!
//! `POST /ORDER?what=…` answers with lines of JSON: `{"progress": …}` as work goes on, then `{"done": …}` or
//! `{"error": …}`. What an order gives in bytes stands between them: `{"bytes": n}`, and behind the line n bytes. What
//! one takes in bytes is the request's body.

use std::io::{self, BufWriter, Read, Write};
use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use futures_lite::future;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::eco::oci::Platforms;
use crate::front::{Answering, Handler, Out};
use crate::rt::{Gate, Tasks};

use super::{Admin, Choice, Order, Prefetch, RoomOrder};

/// Lines that wait for the operator's terminal; work waits when it is full.
const LINES: usize = 16;

/// Bytes that an order gives at a time: [`LINES`] of them wait at most.
const PIECE_BYTES: usize = 256 << 10;

/// Answers orders.
#[derive(Clone)]
pub(super) struct Control {
    admin: Admin,
    /// Its own: orders wait for the disk's.
    gate: Gate,
    tasks: Tasks,
}

impl Control {
    pub(super) fn new(admin: Admin, gate: Gate, tasks: Tasks) -> Self {
        Self { admin, gate, tasks }
    }
}

impl Order {
    /// The order as it stands in a request.
    pub fn uri(&self) -> String {
        let flag = |on: &bool| on.to_string();
        let (name, words) = match self {
            Self::Status => ("status", vec![]),
            Self::Why(what) => ("why", vec![("what", what.clone())]),
            Self::Verify => ("verify", vec![]),
            Self::Purge(what) => ("purge", vec![("what", what.clone())]),
            Self::Pin(what) => ("pin", vec![("what", what.clone())]),
            Self::Unpin(what) => ("unpin", vec![("what", what.clone())]),
            Self::Gc => ("gc", vec![]),
            Self::Peers => ("peers", vec![]),
            Self::Get(what) => ("get", vec![("what", what.clone())]),
            Self::Export { choice, private } => {
                let choice = match choice {
                    Choice::All => ("all", String::new()),
                    Choice::Pinned => ("pinned", String::new()),
                    Choice::What(what) => ("what", what.clone()),
                };
                ("export", vec![choice, ("private", flag(private))])
            }
            Self::Prefetch(Prefetch { what, platforms, signatures }) => {
                let mut words: Vec<_> = what.iter().map(|what| ("what", what.clone())).collect();
                words.extend(platform_words(platforms));
                words.push(("signatures", flag(signatures)));
                ("prefetch", words)
            }
            Self::Import { names } => ("import", vec![("names", flag(names))]),
            Self::Room(order) => order.request(),
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(words);
        format!("/{name}?{}", query.finish())
    }

    fn parse(path: &str, query: &str) -> Option<Self> {
        let word = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(k, _)| k == name).map(|(_, v)| v.into_owned())
        };
        let words = |name: &str| -> Vec<String> {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.filter(|(k, _)| k == name).map(|(_, v)| v.into_owned()).collect()
        };
        let what = || word("what");
        let flag = |name| word(name)?.parse().ok();
        Some(match path {
            "/status" => Self::Status,
            "/why" => Self::Why(what()?),
            "/verify" => Self::Verify,
            "/purge" => Self::Purge(what()?),
            "/pin" => Self::Pin(what()?),
            "/unpin" => Self::Unpin(what()?),
            "/gc" => Self::Gc,
            "/peers" => Self::Peers,
            "/get" => Self::Get(what()?),
            "/export" => {
                let choice = match (word("all"), word("pinned"), what()) {
                    (Some(_), None, None) => Choice::All,
                    (None, Some(_), None) => Choice::Pinned,
                    (None, None, Some(what)) => Choice::What(what),
                    _ => return None,
                };
                Self::Export { choice, private: flag("private")? }
            }
            "/prefetch" => {
                let platforms = platforms(query);
                let signatures = flag("signatures")?;
                Self::Prefetch(Prefetch { what: words("what"), platforms, signatures })
            }
            "/import" => Self::Import { names: flag("names")? },
            _ => Self::Room(RoomOrder::parse(path, query)?),
        })
    }
}

/// Platforms as they stand in a request.
pub(super) fn platform_words(platforms: &Platforms) -> Vec<(&'static str, String)> {
    match platforms {
        Platforms::All => vec![("all_platforms", String::new())],
        Platforms::These(these) => these.iter().map(|p| ("platform", p.clone())).collect(),
    }
}

/// Those of a request.
pub(super) fn platforms(query: &str) -> Platforms {
    let pairs = || url::form_urlencoded::parse(query.as_bytes());
    match pairs().any(|(k, _)| k == "all_platforms") {
        true => Platforms::All,
        false => {
            Platforms::These(pairs().filter(|(k, _)| k == "platform").map(|(_, v)| v.into_owned()).collect())
        }
    }
}

/// What an order gives, between the lines of its answer.
struct Giver(async_channel::Sender<Bytes>);

impl Write for Giver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let mut out = format!("{}\n", json!({"bytes": piece.len()})).into_bytes();
        out.extend_from_slice(piece);
        match self.0.send_blocking(out.into()) {
            Ok(()) => Ok(piece.len()),
            Err(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever gave the order has gone")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an order takes: a request's body.
struct Taker {
    body: Incoming,
    /// Come, and not taken.
    rest: Bytes,
}

impl Taker {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let frame = future::block_on(future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)));
            match frame.transpose().map_err(io::Error::other)? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_) => {}
                },
            }
        }
    }
}

impl Read for Taker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.next()?.unwrap_or_default();
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

impl Handler for Control {
    fn answer(&self, _: IpAddr, request: Request<Incoming>) -> Answering {
        let order = Order::parse(request.uri().path(), request.uri().query().unwrap_or_default());
        let (Some(order), &Method::POST) = (order, request.method()) else {
            let mut response = Response::new(Out::full("{\"error\":\"no such order\"}\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Answering::Now(Some(response));
        };
        let (sender, receiver) = async_channel::bounded(LINES);
        let (admin, gate) = (self.admin.clone(), self.gate.clone());
        let mut input = Taker { body: request.into_body(), rest: Bytes::new() };
        self.tasks.spawn(async move {
            gate.run(move || {
                let mut progress = |state: Value| {
                    // A full queue or a gone operator costs a line, not the work.
                    let _ = sender.try_send(line(&json!({"progress": state})));
                };
                let mut output = BufWriter::with_capacity(PIECE_BYTES, Giver(sender.clone()));
                let outcome = admin.carry_through(&order, &mut input, &mut output, &mut progress);
                let outcome =
                    outcome.and_then(|outcome| output.flush().map(|()| outcome).map_err(Into::into));
                let outcome = match outcome {
                    Ok(outcome) => json!({"done": outcome}),
                    Err(e) => json!({"error": e.to_string()}),
                };
                // An error's unwritten rest would only stand behind the last line.
                drop(output.into_parts());
                let _ = sender.send_blocking(line(&outcome));
                drop(sender);
                // A socket that is closed with bytes unread takes the answer's end with it: whoever sends them has read
                // that, and goes.
                while let Ok(Some(_)) = input.next() {}
            })
            .await;
        });
        Answering::Now(Some(Response::new(Out::lines(receiver))))
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Change;
    use crate::members::Mode;

    #[test]
    fn orders_survive_the_wire() {
        let orders = [
            Order::Status,
            Order::Why("http://127.0.0.1:3142/pypi/simple/a b&c=?é/".into()),
            Order::Verify,
            Order::Purge("sha256:00".into()),
            Order::Pin("flask".into()),
            Order::Unpin("flask".into()),
            Order::Gc,
            Order::Peers,
            Order::Get("pkg:pypi/a@1?file_name=a-1+b.whl".into()),
            Order::Export { choice: Choice::All, private: true },
            Order::Export { choice: Choice::Pinned, private: false },
            Order::Export { choice: Choice::What("a b&pinned=".into()), private: false },
            Order::Import { names: true },
            Order::Prefetch(Prefetch {
                what: vec!["docker.io/library/a:1".into(), "b@sha256:00&what=c".into()],
                platforms: Platforms::These(vec!["linux/arm/v7".into(), "linux/amd64".into()]),
                signatures: true,
            }),
            Order::Prefetch(Prefetch {
                what: vec!["a".into()],
                platforms: Platforms::All,
                signatures: false,
            }),
            Order::Room(RoomOrder::Login),
            Order::Room(RoomOrder::Logout),
            Order::Room(RoomOrder::Create {
                name: "a & b".into(),
                encrypted: true,
                invite: vec![],
                mirror: None,
            }),
            Order::Room(RoomOrder::Create {
                name: "c".into(),
                encrypted: false,
                invite: vec!["@a:s".into(), "@b:s".into()],
                mirror: Some(Mode::Off),
            }),
            Order::Room(RoomOrder::Join {
                room: "#a:s".into(),
                via: vec!["s".into(), "t".into()],
                mirror: Some(Mode::Follow),
            }),
            Order::Room(RoomOrder::Join { room: "!a".into(), via: vec![], mirror: None }),
            Order::Room(RoomOrder::Scope { room: "!a".into(), change: Change::Nothing }),
            Order::Room(RoomOrder::Scope { room: "!a".into(), change: Change::Add }),
            Order::Room(RoomOrder::Scope { room: "a b".into(), change: Change::Replace }),
            Order::Room(RoomOrder::Mirror { room: "!a".into(), mode: Mode::Lazy }),
            Order::Room(RoomOrder::Show { room: "!a".into(), missing: None }),
            Order::Room(RoomOrder::Show { room: "!a".into(), missing: Some(7) }),
            Order::Room(RoomOrder::Sync { room: "!a".into(), platforms: Platforms::All }),
            Order::Room(RoomOrder::Sync {
                room: "!a".into(),
                platforms: Platforms::These(vec!["linux/arm64".into()]),
            }),
            Order::Room(RoomOrder::Leave("!a".into())),
            Order::Room(RoomOrder::List),
        ];
        for order in orders {
            let uri: http::Uri = order.uri().parse().unwrap();
            assert_eq!(Order::parse(uri.path(), uri.query().unwrap_or_default()), Some(order));
        }
        for (path, query) in [
            ("/why", ""),
            ("/export", "private=true"),
            ("/export", "all=&pinned=&private=true"),
            ("/room/x", ""),
            ("/room/mirror", "room=!a"),
            ("/room/join", "room=!a&mirror=x"),
            ("/room/scope", "room=!a&change=x"),
            ("/room/show", "room=!a&missing=x"),
        ] {
            assert_eq!(Order::parse(path, query), None);
        }
    }
}
