//! Asks one question: follows redirects, repeats what may be repeated, and says what the answer means.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use ureq::Agent;
use ureq::tls::RootCerts;
use url::Url;

use crate::base::Trail;

use super::answer::{Coding, coding, length, partial, retry_after};
use super::ask::check_url;
use super::body::Wire;
use super::challenge::{self, Challenge};
use super::error::origin_text;
use super::origins::Origins;
use super::resolver::{Names, Reach, allowed};
use super::tokens::{self, Grant, Held, Tokens};
use super::{
    Answer, Ask, Body, Credentials, Head, Method, Options, OriginState, RateLimit, Site, Status,
    UpstreamError, settings,
};

/// Asks upstreams. Cloning it is cheap, and clones share connections and counters.
///
/// Everything here blocks: call it on threads that may, at most
/// [`limits::DOWNLOADS`](crate::base::limits::DOWNLOADS) at once.
#[derive(Clone)]
pub struct Client(Arc<Inner>, Option<Arc<Trail>>);

struct Inner {
    options: Options,
    names: Arc<Names>,
    origins: Arc<Origins>,
    tokens: Tokens,
    agents: Mutex<Agents>,
    stop: Arc<Stop>,
}

/// Whether the client was closed.
#[derive(Default)]
pub(super) struct Stop {
    closed: Mutex<bool>,
    closing: Condvar,
}

/// ureq's agents, made when first needed: reading the CA store would hold up the start.
///
/// Each [`Reach`] has its own, and with it its own connections: one that was opened to a private address for an
/// upstream that may have it can never serve a request that may not.
#[derive(Default)]
struct Agents {
    made: HashMap<(Reach, bool), Agent>,
    roots: Option<RootCerts>,
}

type Reply = Response<ureq::Body>;

/// A reply with what is needed to read it.
struct Reached {
    reply: Reply,
    origin: String,
    counter: Arc<AtomicU64>,
}

impl Client {
    /// A client that has not opened anything yet; takes no time.
    ///
    /// Fails when the proxy's address is none.
    pub fn new(options: Options) -> Result<Self, UpstreamError> {
        let inner = Inner {
            names: Arc::default(),
            origins: Arc::new(Origins::new(options.avoid_time)),
            tokens: Tokens::default(),
            agents: Mutex::default(),
            stop: Arc::default(),
            options,
        };
        let client = Self(Arc::new(inner), None);
        // Says now whether the proxy is any good, without the CA store.
        client.agent(Reach::Anywhere, false)?;
        Ok(client)
    }

    /// The same client, whose questions say which nodes they came through.
    pub fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        Self(self.0.clone(), Some(trail))
    }

    /// Asks `url` on behalf of `site`, and returns when the answer's head is there.
    ///
    /// The first `url` may be anywhere, as index pages name file hosts; an origin that the site's configuration
    /// does not name is reached at global addresses only. Redirects (at most 5) may lead to the site's own
    /// origin, to the `also` ones and to the host of `url`; those of a registry anywhere. A registry's challenge is
    /// answered once, with a token that is kept. What may pass by itself (no connection, 429, 500,
    /// 502, 503, 504) is tried two more times.
    pub fn open(&self, site: &Site, url: &Url, ask: &Ask) -> Result<Answer, UpstreamError> {
        check_url(url)?;
        let mut at = url.clone();
        at.set_fragment(None);
        let mut challenged = false;
        for _ in 0..=MOST_REDIRECTS {
            let begun = Instant::now();
            let reached = self.ask_patiently(site, &at, ask, self.authorization(site, &at)?)?;
            let unknown = reached.reply.status() == StatusCode::UNAUTHORIZED && site.is_registry();
            if unknown && site.url.origin() == at.origin() && !std::mem::replace(&mut challenged, true) {
                self.introduce(site, &at, reached, begun)?;
                continue;
            }
            if !is_redirect(reached.reply.status()) {
                return self.finish(reached, at, ask);
            }
            let next = redirect_target(&reached, &at)?;
            may_follow(site, url, &at, &next)?;
            drain(reached);
            at = next;
        }
        Err(UpstreamError::RedirectLoop { origin: origin_text(&at) })
    }

    /// What is known of each origin that was asked lately (at most 256), by name.
    pub fn origins(&self) -> Vec<OriginState> {
        self.0.origins.snapshot(Instant::now())
    }

    /// Stops: interrupts every request and body under way, on whatever thread, and refuses further ones.
    pub fn close(&self) {
        // First, so that nobody takes the cut for an end.
        self.0.stop.close();
        let made: Vec<_> = lock(&self.0.agents).made.values().cloned().collect();
        for agent in made {
            agent.shutdown();
        }
    }

    /// One hop, tried up to three times.
    fn ask_patiently(
        &self,
        site: &Site,
        url: &Url,
        ask: &Ask,
        authorization: Option<HeaderValue>,
    ) -> Result<Reached, UpstreamError> {
        let origin = origin_text(url);
        let mut pauses = self.0.options.pauses.iter();
        loop {
            let ticket = self.0.origins.admit(&origin, Instant::now())?;
            let pause = match self.exchange(site, url, ask, &origin, authorization.clone()) {
                Ok(reply) => {
                    let counter = ticket.answered();
                    if let Some(rate) = RateLimit::of(reply.headers()) {
                        self.0.origins.limited(&origin, rate, Instant::now());
                    }
                    let reached = Reached { reply, origin: origin.clone(), counter };
                    let Some(error) = passing(&reached) else { return Ok(reached) };
                    drain(reached);
                    self.0.origins.note(&origin, &error);
                    let asked = error.retry_after();
                    if let Some(rest) = asked.filter(|d| *d > MOST_PATIENCE) {
                        self.0.origins.rest(&origin, rest, Instant::now());
                        return Err(error);
                    }
                    pauses.next().map(|pause| asked.unwrap_or(jittered(*pause))).ok_or(error)?
                }
                Err(error) => {
                    if self.0.stop.is_closed() {
                        return Err(UpstreamError::Closed);
                    }
                    match error.is_silence() {
                        true => ticket.failed(&error, Instant::now()),
                        false => self.0.origins.note(&origin, &error),
                    }
                    // A time limit that passed was long enough for everybody.
                    let again = matches!(error, UpstreamError::Unreachable { .. });
                    pauses.next().filter(|_| again).map(|pause| jittered(*pause)).ok_or(error)?
                }
            };
            self.0.stop.pause(pause)?;
        }
    }

    /// One request and the head of its answer.
    fn exchange(
        &self,
        site: &Site,
        url: &Url,
        ask: &Ask,
        origin: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, UpstreamError> {
        let mut request = Request::builder()
            .method(match ask.method {
                Method::Get => http::Method::GET,
                Method::Head => http::Method::HEAD,
            })
            .uri(url.as_str())
            .body(())
            .map_err(|_| UpstreamError::BadUrl { why: "not an HTTP address" })?;
        *request.headers_mut() = ask.headers(site)?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        if let Some(node) = &self.0.options.node {
            let trail =
                self.1.as_deref().map_or_else(|| Trail::default().with(node), |trail| trail.with(node));
            let trail =
                HeaderValue::from_str(&trail).map_err(|_| UpstreamError::BadAsk { why: "cdn-loop" })?;
            request.headers_mut().insert(CDN_LOOP, trail);
        }
        let reach = self.reach(site, url);
        if self.0.options.proxy.is_some() && reach == Reach::Internet {
            self.judge_for_proxy(url, origin)?;
        }
        let agent = self.agent(reach, url.scheme() == "https")?;
        log::debug!("asking {origin} for {}", site.name);
        agent.run(request).map_err(|e| UpstreamError::before_head(e, origin))
    }

    /// What a request to `url` carries to say who asks.
    fn authorization(&self, site: &Site, url: &Url) -> Result<Option<HeaderValue>, UpstreamError> {
        match site.is_registry() {
            false => site.authorization(url),
            true if site.url.origin() == url.origin() => Ok(self.0.tokens.current(site, url, Instant::now())),
            true => Ok(None),
        }
    }

    /// Gets what a registry's challenge asks for, unless another request has got it since this one `begun`.
    fn introduce(
        &self,
        site: &Site,
        url: &Url,
        refused: Reached,
        begun: Instant,
    ) -> Result<(), UpstreamError> {
        let origin = refused.origin.clone();
        let wanted = challenge::of(refused.reply.headers());
        drain(refused);
        let place = self.0.tokens.place(site, url);
        let mut held = lock(&place);
        if held.grant.as_ref().is_some_and(|grant| grant.since > begun) {
            return Ok(());
        }
        if let Some((_, why)) = held.failed.as_ref().filter(|(at, _)| *at > begun) {
            return Err(why.clone());
        }
        *held = Held::default();
        match self.granted(site, url, wanted, origin) {
            Ok(grant) => held.grant = Some(grant),
            Err(e) => {
                held.failed = Some((Instant::now(), e.clone()));
                return Err(e);
            }
        }
        Ok(())
    }

    /// What a challenge asks for.
    fn granted(
        &self,
        site: &Site,
        url: &Url,
        wanted: Option<Challenge>,
        origin: String,
    ) -> Result<Grant, UpstreamError> {
        let denied = UpstreamError::Denied { origin, status: 401 };
        match wanted {
            Some(Challenge::Basic) => Grant::basic(site.credentials.as_ref().ok_or(denied)?),
            Some(Challenge::Bearer(bearer)) => {
                let question = tokens::question(site, url, &bearer)?;
                let credentials = site.credentials.as_ref().map(Credentials::basic).transpose()?;
                let ask = Ask { accept: Some("application/json".into()), ..Ask::default() };
                let reached = self.ask_patiently(site, &question, &ask, credentials)?;
                Grant::read(&mut self.finish(reached, question, &ask)?)
            }
            None => Err(denied),
        }
    }

    /// Whether the upstream said a short while ago that it answers no more requests of ours.
    pub fn is_spent(&self, site: &Site) -> bool {
        self.0.origins.is_spent(&origin_text(&site.url), Instant::now())
    }

    /// How far this request may reach.
    ///
    /// An origin that the configuration does not name may be where the upstream itself is: the same address and
    /// port. What is remembered of names is only a hint here; the resolver judges what is connected to.
    fn reach(&self, site: &Site, url: &Url) -> Reach {
        let reach = site.reach(url);
        if reach == Reach::Anywhere || self.0.options.proxy.is_some() || url.scheme() != site.url.scheme() {
            return reach;
        }
        let addresses = |url: &Url| {
            let port = url.port_or_known_default()?;
            self.0.names.lookup(url.host_str()?, port, self.0.options.resolve_time).ok()
        };
        let Some(there) =
            addresses(url).filter(|found| allowed(found, Reach::Internet).count() < found.len())
        else {
            return reach;
        };
        let home = addresses(&site.url).unwrap_or_default();
        there.into_iter().find(|a| home.contains(a)).map_or(reach, Reach::Home)
    }

    /// Behind a proxy it is the proxy that resolves; what our own resolver knows of is judged all the same,
    /// as names of the local network are.
    fn judge_for_proxy(&self, url: &Url, origin: &str) -> Result<(), UpstreamError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        match self.0.names.lookup(host, port, self.0.options.resolve_time) {
            Ok(found) if !found.is_empty() && allowed(&found, Reach::Internet).count() < found.len() => {
                Err(UpstreamError::AddressRefused { origin: origin.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The agent for this reach and scheme.
    fn agent(&self, reach: Reach, https: bool) -> Result<Agent, UpstreamError> {
        let inner = &self.0;
        let mut agents = lock(&inner.agents);
        // Under the lock, so that none is made behind `close`.
        if inner.stop.is_closed() {
            return Err(UpstreamError::Closed);
        }
        if let Some(agent) = agents.made.get(&(reach, https)) {
            return Ok(agent.clone());
        }
        let proxy_https = inner.options.proxy.as_ref().is_some_and(|p| p.scheme() == "https");
        if (https || proxy_https) && agents.roots.is_none() {
            agents.roots = Some(settings::load_roots()?);
        }
        let roots = agents.roots.clone();
        let agent = settings::agent(&inner.options, reach, inner.names.clone(), roots)?;
        agents.made.insert((reach, https), agent.clone());
        Ok(agent)
    }

    /// What an answer means.
    fn finish(&self, reached: Reached, url: Url, ask: &Ask) -> Result<Answer, UpstreamError> {
        let headers = reached.reply.headers();
        let origin = || reached.origin.clone();
        let mut head = Head::of(headers);
        let status = match reached.reply.status().as_u16() {
            200 => Status::Ok,
            206 => partial(headers, ask.range)
                .map_err(|why| UpstreamError::BadRange { origin: origin(), why })?,
            304 if ask.is_conditional() => Status::NotModified,
            404 | 410 => Status::Missing,
            416 => return Err(UpstreamError::BadRange { origin: origin(), why: "416" }),
            status @ (401 | 403) => return Err(UpstreamError::Denied { origin: origin(), status }),
            code => return Err(UpstreamError::Status { origin: origin(), code }),
        };
        if matches!(status, Status::NotModified | Status::Missing) {
            head.length = None;
            drain(reached);
            return Ok(Answer { status, head, url, body: Body::empty() });
        }
        let coding = if ask.verbatim { Coding::Identity } else { coding(headers) };
        if coding != Coding::Identity && matches!(status, Status::Partial { .. }) {
            return Err(UpstreamError::BadRange { origin: origin(), why: "a range of something encoded" });
        }
        let want = match status {
            Status::Partial { first, last, .. } => Some(last - first + 1),
            _ => length(headers),
        };
        head.length = want;
        head.compressed = coding == Coding::Gzip;
        if head.compressed {
            head.length = None;
        }
        if let Coding::Other(name) = coding {
            return Err(UpstreamError::Encoding { origin: origin(), name });
        }
        let body = match ask.method {
            Method::Head => Body::empty(),
            Method::Get => {
                let stop = self.0.stop.clone();
                let wire = Wire::new(reached.reply.into_body(), &reached.origin, want, reached.counter, stop);
                let origins = self.0.origins.clone();
                if head.compressed { Body::gzip(wire, origins) } else { Body::plain(wire, origins) }
            }
        };
        Ok(Answer { status, head, url, body })
    }
}

impl Stop {
    pub(super) fn is_closed(&self) -> bool {
        *lock(&self.closed)
    }

    fn close(&self) {
        *lock(&self.closed) = true;
        self.closing.notify_all();
    }

    /// Waits, unless the client is closed.
    fn pause(&self, time: Duration) -> Result<(), UpstreamError> {
        let closed = lock(&self.closed);
        let (closed, _) = self
            .closing
            .wait_timeout_while(closed, time, |closed| !*closed)
            .unwrap_or_else(PoisonError::into_inner);
        if *closed { Err(UpstreamError::Closed) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// The error of an answer that may be another one in a moment.
fn passing(reached: &Reached) -> Option<UpstreamError> {
    let origin = reached.origin.clone();
    match reached.reply.status().as_u16() {
        429 | 503 => {
            let retry_after = retry_after(reached.reply.headers(), SystemTime::now());
            Some(UpstreamError::Busy { origin, retry_after })
        }
        code @ (500 | 502 | 504) => Some(UpstreamError::Status { origin, code }),
        _ => None,
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect_target(reached: &Reached, from: &Url) -> Result<Url, UpstreamError> {
    let location = reached.reply.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    let mut target = target.ok_or_else(|| UpstreamError::Protocol {
        origin: reached.origin.clone(),
        why: "a redirect to nowhere".into(),
    })?;
    target.set_fragment(None);
    Ok(target)
}

/// Whether a redirect stays where the configuration, or the address that was asked, leads.
pub(super) fn may_follow(site: &Site, first: &Url, from: &Url, to: &Url) -> Result<(), UpstreamError> {
    let downgrade = from.scheme() == "https" && to.scheme() != "https";
    // What a registry sends a client elsewhere for is named by its digest.
    let known = site.names(to) || to.host() == first.host() || site.is_registry();
    if downgrade || !known || check_url(to).is_err() {
        return Err(UpstreamError::RedirectRefused { to: origin_text(to) });
    }
    Ok(())
}

/// Reads a short body that nobody wants, so that the connection can be used again.
fn drain(reached: Reached) {
    if length(reached.reply.headers()).is_some_and(|n| n <= DRAIN_BYTES) {
        let mut reader = reached.reply.into_body().into_reader();
        // A failure only means that the connection is not used again.
        drop(std::io::copy(&mut reader.by_ref().take(DRAIN_BYTES + 1), &mut std::io::sink()));
    }
}

/// A pause shortened at random by up to a half, so that many nodes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks can be half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 8586.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Redirects followed for one question: an index host, a mirror, a CDN and its signed address are three.
const MOST_REDIRECTS: usize = 5;

/// The longest `Retry-After` that is waited for while a client waits for us.
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// Bodies of redirects and errors are a few hundred bytes; a new connection costs more than reading this much.
const DRAIN_BYTES: u64 = 16 << 10;
