//! A read-only IPFS gateway over what is stored: `/ipfs/CID`.
//!
//! Follows specs.ipfs.tech, "Trustless Gateway" (blocks and CAR files) and, for plain files, "Path Gateway". It fetches
//! nothing and serves only what anybody may have: the door may be open to the whole LAN. No folders, no IPNS, no
//! `Access-Control-Allow-Origin`: a web page elsewhere has no business in what an office has installed.

mod ask;

use http::request::Parts as Request;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::eco::pypi;
use crate::fetch::{CarRefusal, Fetch, FetchError, Piece, Reach};

use super::body::Out;
use super::conditions::{Ranged, if_range_holds, matches, ranged};
use super::content::text;
use super::metrics::Cache;
use super::reply::Reply;
use ask::{Asked, Format, Refusal, disposition};

const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");

/// What a CID names never changes (Path Gateway, `Cache-Control`).
const LASTING: &str = "public, max-age=29030400, immutable";

/// Answers what lies below `/ipfs`.
#[derive(Clone)]
pub(super) struct Ipfs {
    pub(super) fetch: Fetch,
}

impl Ipfs {
    /// The answer; `below` is what follows `/ipfs`.
    pub(super) async fn answer(&self, request: &Request, below: &str) -> Reply {
        match ask::read(request, below) {
            Ok(asked) => self.look(request, &asked).await.unwrap_or_else(|reply| *reply),
            Err(Refusal(status, text)) => word(status, &text),
        }
    }

    async fn look(&self, request: &Request, asked: &Asked) -> Result<Reply, Box<Reply>> {
        let failed = |e: FetchError| Box::new(Reply::from(&e));
        let etag = format!("\"{}{}\"", asked.cid, asked.format.tag());
        let reply = match asked.format {
            Format::File => {
                let piece = self.fetch.file(&asked.cid, Reach::Anybody).await.map_err(failed)?;
                piece.map(|piece| piece_reply(request, piece, &etag))
            }
            Format::Raw => {
                let piece = self.fetch.block(&asked.cid).await.map_err(failed)?;
                piece.map(|piece| piece_reply(request, piece, &etag))
            }
            Format::Car { scope, repeats } => match self.fetch.car(&asked.cid, scope, repeats).await {
                Ok(Some(_)) if is_known(request, &etag) => Some(not_modified()),
                Ok(car) => car.map(|car| match request.method == Method::HEAD {
                    true => told(car.length),
                    false => Reply::new(StatusCode::OK, Cache::Hit, Out::stream(car.body())),
                }),
                Err(CarRefusal::Failed(e)) => return Err(failed(e)),
                Err(e @ CarRefusal::NotAFile) => {
                    return Err(word(StatusCode::NOT_FOUND, &e.to_string()).into());
                }
                Err(e @ CarRefusal::Beyond(_)) => {
                    return Err(word(StatusCode::BAD_REQUEST, &e.to_string()).into());
                }
            },
        };
        let Some(mut reply) = reply else { return Err(absent(request, asked).into()) };
        if reply.status.is_success() || reply.status == StatusCode::NOT_MODIFIED {
            describe(&mut reply, asked, &etag);
            reply.put(X_IPFS_PATH, request.uri.path());
        }
        Ok(reply)
    }
}

/// The headers that every good answer about a CID has.
fn describe(reply: &mut Reply, asked: &Asked, etag: &str) {
    let cid = &asked.cid;
    let wished = asked.filename.as_deref();
    let (content_type, name, attachment) = match asked.format {
        Format::File => {
            let download = asked.download.then(|| cid.to_string());
            (pypi::content_type(wished.unwrap_or_default()).to_owned(), download, asked.download)
        }
        Format::Raw => ("application/vnd.ipld.raw".to_owned(), Some(format!("{cid}.bin")), true),
        Format::Car { repeats, .. } => {
            let dups = if repeats == crate::fetch::Repeats::Sent { 'y' } else { 'n' };
            let content_type = format!("application/vnd.ipld.car; version=1; order=dfs; dups={dups}");
            (content_type, Some(format!("{cid}.car")), true)
        }
    };
    reply.put(header::CONTENT_TYPE, &content_type);
    reply.put(header::ETAG, etag);
    reply.set(header::CACHE_CONTROL, LASTING);
    // One URL, several formats.
    reply.set(header::VARY, "Accept");
    reply.set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    reply.put(X_IPFS_ROOTS, &cid.to_string());
    if let Some(name) = wished.map(str::to_owned).or(name) {
        reply.put(header::CONTENT_DISPOSITION, &disposition(attachment, &name));
    }
    if let Some(location) = &asked.location {
        reply.put(header::CONTENT_LOCATION, location);
    }
    let ranges = if matches!(asked.format, Format::Car { .. }) { "none" } else { "bytes" };
    reply.set(header::ACCEPT_RANGES, ranges);
}

/// Bytes that can be had in part.
fn piece_reply(request: &Request, piece: Piece, etag: &str) -> Reply {
    if is_known(request, etag) {
        return not_modified();
    }
    let size = piece.length;
    let holds = if_range_holds(text(request, header::IF_RANGE), Some(etag));
    let range = text(request, header::RANGE).filter(|_| holds && request.method == Method::GET);
    match range.map_or(Ranged::Whole, |range| ranged(range, size)) {
        Ranged::Unsatisfiable => {
            let mut reply = word(StatusCode::RANGE_NOT_SATISFIABLE, "it ends before that");
            reply.put(header::CONTENT_RANGE, &format!("bytes */{size}"));
            reply
        }
        Ranged::Part { first, length } => {
            let body = Out::stream(piece.body(first, length));
            let mut reply = Reply::new(StatusCode::PARTIAL_CONTENT, Cache::Hit, body);
            reply.put(header::CONTENT_RANGE, &format!("bytes {first}-{}/{size}", first + length - 1));
            reply
        }
        Ranged::Whole if request.method == Method::HEAD => told(size),
        Ranged::Whole => Reply::new(StatusCode::OK, Cache::Hit, Out::stream(piece.body(0, size))),
    }
}

fn is_known(request: &Request, etag: &str) -> bool {
    text(request, header::IF_NONE_MATCH).is_some_and(|wanted| matches(wanted, etag))
}

fn not_modified() -> Reply {
    Reply::new(StatusCode::NOT_MODIFIED, Cache::Hit, Out::empty())
}

/// The answer to a `HEAD`.
fn told(length: u64) -> Reply {
    let mut reply = Reply::new(StatusCode::OK, Cache::Hit, Out::told(length));
    reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    reply
}

/// Not stored, or not for everybody: one answer for both.
fn absent(request: &Request, asked: &Asked) -> Reply {
    let only_if_cached = text(request, header::CACHE_CONTROL)
        .is_some_and(|v| v.to_ascii_lowercase().contains("only-if-cached"));
    let status = if only_if_cached { StatusCode::PRECONDITION_FAILED } else { StatusCode::NOT_FOUND };
    word(status, &format!("{} is not stored here, and nobody is asked for it", asked.cid))
}

fn word(status: StatusCode, text: &str) -> Reply {
    let mut reply = Reply::text(status, &format!("dpm: {text}"));
    // It may be stored a moment later.
    reply.set(header::CACHE_CONTROL, "no-store");
    reply
}
