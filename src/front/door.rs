//! One handler: what a request is for, and who answers it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::base::{Trail, limits};
use crate::eco::apt::Source;
use crate::fetch::Fetch;
use crate::resolve::Resolve;
use crate::resolve::images::Images;
use crate::rt::{Clock, Gate};

use super::apt::{Apt, DIRECT};
use super::body::Out;
use super::ipfs::Ipfs;
use super::metrics::{Metrics, Note, family, labelled, value};
use super::names::{Names, host, name};
use super::oci::{self, Clients, Oci};
use super::pypi::{Ask, Pypi};
use super::reply::Reply;
use super::server::{Answering, Handler};

/// Answers clients; clones are one.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    pypi: Pypi,
    apt: Apt,
    oci: Oci,
    ipfs: Ipfs,
    names: Names,
    node: String,
    peers: Box<dyn Fn() -> String + Send + Sync>,
    metrics: Arc<Metrics>,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    disk: Gate,
    admits: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// What [`Door`] is made of.
pub struct Parts {
    /// Names.
    pub resolve: Resolve,
    /// Names of container images.
    pub images: Images,
    /// Who gets what comes through each registry, in their order.
    pub clients: Vec<Clients>,
    /// Bytes.
    pub fetch: Fetch,
    /// What apt may ask for.
    pub apt: Vec<Source>,
    /// What this box is called: `/ipfs`, `/api` and `/metrics` answer to no other name.
    pub names: Names,
    /// What this node calls itself in a request's trail.
    pub node: String,
    /// Tells ages.
    pub clock: Clock,
    /// For the blocking part of an answer.
    pub disk: Gate,
    /// Counts and logs.
    pub metrics: Arc<Metrics>,
    /// Looks at what the door may not know itself. May block for a moment.
    pub gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    /// Who is near, as JSON. May block for a moment.
    pub peers: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether a client at this address is answered. Must be quick.
    pub admits: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// The state of the node in numbers, for `/readyz` and `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Why the node is not ready to store and serve; empty when it is.
    pub not_ready: Vec<String>,
    /// Name, kind (`counter` or `gauge`), help and value of each further metric.
    pub metrics: Vec<(&'static str, &'static str, &'static str, u64)>,
    /// Gauges with a value for each of several.
    pub labelled: Vec<Labelled>,
}

/// A gauge with a value for each of several.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Of the metric.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    /// What the several are.
    pub label: &'static str,
    /// Which one, and its value.
    pub values: Vec<(String, u64)>,
}

impl Door {
    /// A door to these rooms.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            resolve,
            images,
            clients,
            fetch,
            apt,
            names,
            node,
            clock,
            disk,
            metrics,
            gauges,
            peers,
            admits,
        } = parts;
        let apt = Apt { fetch: fetch.clone(), clock: clock.clone(), sources: apt };
        let oci = Oci::new(images, fetch.clone(), clock.clone(), disk.clone(), clients);
        let ipfs = Ipfs { fetch: fetch.clone() };
        let pypi = Pypi { resolve, fetch, clock, disk: disk.clone(), gathering: Arc::default() };
        Self {
            inner: Arc::new(Inner {
                pypi,
                apt,
                oci,
                ipfs,
                names,
                node,
                peers,
                metrics,
                gauges,
                disk,
                admits,
            }),
        }
    }
}

impl Handler for Door {
    fn answer(&self, client: IpAddr, request: Request<Incoming>) -> Answering {
        // A body is never asked for: hyper reads past a small one and closes on a large one.
        let (request, _) = request.into_parts();
        let note = Note::new(&self.inner.metrics, client, &request);
        if !(self.inner.admits)(client) {
            let text = "dpm: this box answers its own network only (--lan); with --listen and without --lan it answers everybody";
            return Answering::Now(Some(finish(Reply::text(StatusCode::FORBIDDEN, text), note)));
        }
        let lines = request.headers.get_all("cdn-loop").iter().map(|line| line.as_bytes());
        let trail = Trail::read(lines).map(Arc::new);
        if let Some(why) = trail.as_ref().and_then(|trail| self.inner.leads_nowhere(trail)) {
            return Answering::Now(Some(finish(Reply::text(StatusCode::LOOP_DETECTED, why), note)));
        }
        if let Some(authority) = request.uri.authority()
            && (self.inner.apt.knows(authority.as_str()) || !self.inner.names.is_here(authority.as_str()))
        {
            if let Some(reply) = refused(&request) {
                return Answering::Now(Some(finish(reply, note)));
            }
            let inner = self.inner.clone();
            return Answering::Later(Box::pin(async move {
                let apt = trail.map_or_else(|| inner.apt.clone(), |trail| inner.apt.on_behalf(trail));
                let reply = apt.answer(&request).await;
                finish(reply, note)
            }));
        }
        let path = request.uri.path();
        if let Some(below) = path.strip_prefix("/v2").filter(|p| p.is_empty() || p.starts_with('/')) {
            let ask = self.inner.oci.read(client, &request, below);
            if let oci::Ask::Done(reply) = ask {
                return Answering::Now(Some(finish(*reply, note)));
            }
            if let Some(reply) = self.inner.oci.peek(&request, &ask) {
                return Answering::Now(Some(finish(reply, note)));
            }
            let inner = self.inner.clone();
            return Answering::Later(Box::pin(async move {
                let reply = match trail {
                    Some(trail) => inner.oci.on_behalf(trail).answer(&request, ask).await,
                    None => inner.oci.answer(&request, ask).await,
                };
                finish(reply, note)
            }));
        }
        if let Some(reply) = refused(&request) {
            return Answering::Now(Some(finish(reply, note)));
        }
        let Some(below) = path.strip_prefix("/pypi").filter(|p| p.starts_with('/')) else {
            let inner = self.inner.clone();
            return Answering::Later(Box::pin(async move {
                let reply = inner.own(client, &request).await;
                finish(reply, note)
            }));
        };
        let ask = self.inner.pypi.read(&request, below);
        if let Ask::Done(reply) = ask {
            return Answering::Now(Some(finish(*reply, note)));
        }
        if let Some(reply) = self.inner.pypi.peek(&request, &ask) {
            return Answering::Now(Some(finish(reply, note)));
        }
        let inner = self.inner.clone();
        Answering::Later(Box::pin(async move {
            let reply = match trail {
                Some(trail) => inner.pypi.on_behalf(trail).answer(&request, ask).await,
                None => inner.pypi.answer(&request, ask).await,
            };
            finish(reply, note)
        }))
    }
}

/// What no ecosystem would answer.
fn refused(request: &http::request::Parts) -> Option<Reply> {
    if request.method == Method::CONNECT {
        let text = format!("dpm: no tunnels lead through here; {DIRECT}");
        return Some(Reply::text(StatusCode::METHOD_NOT_ALLOWED, &text));
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let mut reply = Reply::text(StatusCode::METHOD_NOT_ALLOWED, "dpm: only GET and HEAD");
        reply.set(header::ALLOW, "GET, HEAD");
        return Some(reply);
    }
    if request.uri.path().len() > limits::PATH_BYTES {
        return Some(Reply::text(StatusCode::URI_TOO_LONG, "dpm: the path is too long"));
    }
    None
}

fn finish(reply: Reply, mut note: Note) -> Response<Out> {
    note.status = reply.status.as_u16();
    note.cache = reply.cache;
    note.promised = http_body::Body::size_hint(&reply.body).exact();
    let Reply { status, headers, body, cache, reason } = reply;
    Reply { status, headers, body: body.with_note(note), cache, reason }.send()
}

impl Inner {
    /// Why a request that came this way is not asked on, if it is not.
    fn leads_nowhere(&self, trail: &Trail) -> Option<&'static str> {
        if trail.has(&self.node) {
            return Some(
                "dpm: this node is its own upstream: dpm nodes are set up in front of each other in a circle",
            );
        }
        trail.is_endless().then_some("dpm: this came through too many dpm nodes already")
    }

    /// Our own pages.
    async fn own(self: &Arc<Self>, client: IpAddr, request: &http::request::Parts) -> Reply {
        let path = request.uri.path();
        let guarded = ["/ipfs", "/ipns", "/api", "/metrics"];
        let below = |root: &str| path.strip_prefix(root).is_some_and(|b| b.is_empty() || b.starts_with('/'));
        if guarded.into_iter().any(below) && !self.names.are_meant(request) {
            let text = "dpm: this is answered under an address, or a name of this box; names = [\"…\"] in dpm.toml \
                        adds one";
            return Reply::text(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if let Some(below) = path.strip_prefix("/ipfs").filter(|b| b.is_empty() || b.starts_with('/')) {
            return self.ipfs.answer(request, below).await;
        }
        match path {
            "/" => self.apt.probed(request).unwrap_or_else(|| Reply::text(StatusCode::OK, &greeting())),
            "/healthz" => Reply::text(StatusCode::OK, "ok"),
            "/readyz" => {
                let gauges = self.look().await;
                match gauges.not_ready.is_empty() {
                    true => Reply::text(StatusCode::OK, "ready"),
                    false => Reply::text(StatusCode::SERVICE_UNAVAILABLE, &gauges.not_ready.join("\n")),
                }
            }
            "/metrics" => {
                let gauges = self.look().await;
                let mut text = self.metrics.text();
                family(&mut text, "dpm_build_info", "gauge", "Always 1.");
                text.push_str(concat!("dpm_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"));
                for (name, kind, help, number) in gauges.metrics {
                    value(&mut text, name, kind, help, number);
                }
                for gauge in &gauges.labelled {
                    labelled(&mut text, gauge);
                }
                let mut reply = Reply::text(StatusCode::OK, text.trim_end());
                reply.set(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
                reply
            }
            "/api/peers" if is_own(client, request) => {
                let inner = self.clone();
                let text = self.disk.run(move || (inner.peers)()).await;
                let mut reply = Reply::text(StatusCode::OK, &text);
                reply.set(header::CONTENT_TYPE, "application/json");
                reply.set(header::CACHE_CONTROL, "no-store");
                reply
            }
            "/api/peers" => Reply::text(
                StatusCode::FORBIDDEN,
                "dpm: who is near is told on this machine only, under an address or as localhost",
            ),
            path if path == "/ipns" || path.starts_with("/ipns/") => {
                Reply::text(StatusCode::NOT_IMPLEMENTED, "dpm: there is no IPNS here; see /ipfs/CID")
            }
            _ => Reply::text(StatusCode::NOT_FOUND, "dpm: nothing is here; see /"),
        }
    }

    async fn look(self: &Arc<Self>) -> Gauges {
        let inner = self.clone();
        self.disk.run(move || (inner.gauges)()).await
    }
}

fn greeting() -> String {
    format!(
        "dpm {}: a pull-through cache for packages\n\n\
         pip:  pip install --index-url http://HOST:PORT/pypi/simple/ PACKAGE\n\
         uv:   uv pip install --default-index http://HOST:PORT/pypi/simple/ PACKAGE\n\n\
         apt:  Acquire::http::Proxy \"http://HOST:PORT/\"; for the http sources that this box knows\n\n\
         docker, podman: pull HOST:PORT/library/alpine, or HOST:PORT/ghcr.io/org/image; or make it a mirror\n\n\
         ipfs: http://HOST:PORT/ipfs/CID, also with ?format=raw or ?format=car, for what is stored here\n\n\
         /healthz  /readyz  /metrics  /api/peers (on this machine)",
        env!("CARGO_PKG_VERSION")
    )
}

/// Whether it is somebody on this machine who asks, and not a web page elsewhere by a name of its own that leads here.
pub(super) fn is_own(client: IpAddr, request: &http::request::Parts) -> bool {
    let name = name(host(request));
    client.to_canonical().is_loopback()
        && (name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_request_it_is() {
        let cases = [
            ("127.0.0.1", "127.0.0.1:3142", true),
            ("127.0.0.1", "localhost", true),
            ("::1", "[::1]:3142", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "evil.example.org:3142", false),
            ("127.0.0.1", "192.0.2.7", false),
            ("127.0.0.1", "", false),
            ("192.0.2.7", "localhost", false),
        ];
        for (client, host, want) in cases {
            let request = Request::get("/api/peers").header(header::HOST, host).body(()).unwrap();
            assert_eq!(is_own(client.parse().unwrap(), &request.into_parts().0), want, "{client} {host}");
        }
    }
}
