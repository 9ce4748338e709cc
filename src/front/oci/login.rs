//! Who may have what came through a registry that is kept apart: clients that show what the operator demands.
//!
//! Clients ask `/v2/` first and do there what it wants of them, so a registry door has one kind of challenge for all
//! its repositories. It is a token, which everybody can have (docker's mirrors cannot say who they are), and which says
//! whose passwords its bearer has shown.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts as Request;
use http::{StatusCode, header};

use crate::base::{Secret, Sha256};
use crate::eco::oci::{self, Want};
use crate::resolve::images::{Images, Spot};
use crate::rt::Clock;

use super::super::body::Out;
use super::super::content::text;
use super::super::door::is_own;
use super::super::metrics::Cache;
use super::super::reply::Reply;
use super::refusal::Refusal;

/// Who gets what comes through a registry.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Everybody who reaches dpm.
    Anyone,
    /// Programs of this machine.
    Loopback,
    /// Those who know this name and password.
    Password(String, Secret),
}

/// The operator's demands, and the tokens that say that they were met.
pub(super) struct Login {
    /// In the order of the registries.
    clients: Vec<Clients>,
    key: hmac::Key,
    clock: Clock,
}

/// How long a token is good: a pull of many layers asks for a new one on its way.
const TOKEN_TIME: Duration = Duration::from_secs(300);

/// Registries that a token can speak of, one bit each. A configuration with more is refused.
const MOST: usize = 64;

impl Login {
    pub(super) fn new(clients: Vec<Clients>, clock: Clock) -> Self {
        let mut seed = [0; 32];
        rand::fill(&mut seed).expect("the system has random bytes");
        // Good for as long as this process: clients get another token when one is refused.
        Self { clients, key: hmac::Key::new(hmac::HMAC_SHA256, &seed), clock }
    }

    /// `/v2/`: whether clients have to say who they are.
    pub(super) fn base(&self, request: &Request) -> Result<Reply, Refusal> {
        let demands = self.clients.iter().any(|c| matches!(c, Clients::Password(..)));
        if demands && self.shown(request).is_none() {
            return Err(challenge(request, None));
        }
        let mut reply = Reply::new(StatusCode::OK, Cache::None, Out::full("{}"));
        reply.set(header::CONTENT_TYPE, "application/json");
        reply.set(super::API_VERSION, "registry/2.0");
        Ok(reply)
    }

    /// Whether this client gets what comes through the repository's registry.
    pub(super) fn check(&self, client: IpAddr, request: &Request, spot: &Spot) -> Result<(), Refusal> {
        let may = match self.clients.get(spot.registry) {
            Some(Clients::Anyone) => true,
            Some(Clients::Loopback) if is_own(client, request) && !is_forwarded(request) => true,
            Some(Clients::Password(..)) => {
                self.shown(request).is_some_and(|shown| shown >> spot.registry & 1 == 1)
            }
            Some(Clients::Loopback) | None => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "DENIED",
                    "this registry's images are for this machine only; [[oci]] clients = \"password\" or \"anyone\" opens them",
                ));
            }
        };
        if may { Ok(()) } else { Err(challenge(request, Some(spot))) }
    }

    /// A token that says which passwords were shown (distribution, "Token Authentication Specification").
    ///
    /// Wrong ones are refused where they matter: at a login, and for a repository that needs them. Elsewhere they are
    /// overlooked, as docker shows a mirror the credentials of Docker Hub.
    pub(super) fn token(&self, request: &Request, images: &Images) -> Result<Reply, Refusal> {
        let shown = basic(request).map(|(name, password)| self.matching(&name, &password));
        if shown == Some(0) && self.matters(request, images) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "wrong username or password")
                .with(header::WWW_AUTHENTICATE, "Basic realm=\"dpm\"".into()));
        }
        let token = self.sign(shown.unwrap_or(0));
        let answer = serde_json::json!({
            "token": token, "access_token": token, "expires_in": TOKEN_TIME.as_secs(),
        });
        let mut reply = Reply::new(StatusCode::OK, Cache::None, Out::full(answer.to_string()));
        reply.set(header::CONTENT_TYPE, "application/json");
        reply.set(header::CACHE_CONTROL, "no-store");
        Ok(reply)
    }

    fn matters(&self, request: &Request, images: &Images) -> bool {
        let Some(scope) = oci::query_of(request.uri.query(), "scope") else { return true };
        let scope = scope.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/");
        let repository = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':'));
        let Some((name, _)) = repository else { return true };
        match oci::want(&format!("/{name}/tags/list"), None) {
            Ok(Want::Of(place, _)) => images
                .spot(&place)
                .is_ok_and(|spot| matches!(self.clients.get(spot.registry), Some(Clients::Password(..)))),
            _ => true,
        }
    }

    /// Whose passwords a request shows, a bit a registry. `None` when it shows nothing that we gave or know.
    fn shown(&self, request: &Request) -> Option<u64> {
        let (scheme, rest) = text(request, header::AUTHORIZATION)?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.verify(rest.trim());
        }
        let (name, password) = basic(request)?;
        Some(self.matching(&name, &password)).filter(|shown| *shown != 0)
    }

    fn matching(&self, name: &str, password: &str) -> u64 {
        let mut bits = 0;
        for (n, clients) in self.clients.iter().enumerate().take(MOST) {
            if let Clients::Password(want_name, want) = clients
                && same(name, want_name) & same(password, want.reveal())
            {
                bits |= 1 << n;
            }
        }
        bits
    }

    fn sign(&self, shown: u64) -> String {
        let until = self.clock.now().0 + TOKEN_TIME.as_millis() as u64;
        let said = format!("{until:x}.{shown:x}");
        let tag = hmac::sign(&self.key, said.as_bytes());
        format!("{said}.{}", hex(tag.as_ref()))
    }

    fn verify(&self, token: &str) -> Option<u64> {
        let (said, tag) = token.rsplit_once('.')?;
        let (until, shown) = said.split_once('.')?;
        let (until, shown) = (u64::from_str_radix(until, 16).ok()?, u64::from_str_radix(shown, 16).ok()?);
        let ours = hmac::sign(&self.key, said.as_bytes());
        let genuine = constant_time::verify_slices_are_equal(hex(ours.as_ref()).as_bytes(), tag.as_bytes());
        (genuine.is_ok() && self.clock.now().0 < until).then_some(shown)
    }
}

/// Whether a proxy handed it on: whoever sent it is not the proxy.
fn is_forwarded(request: &Request) -> bool {
    ["forwarded", "x-forwarded-for"].iter().any(|name| request.headers.contains_key(*name))
}

/// In a time that tells nothing of where they differ.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (Sha256::of(a.as_bytes()), Sha256::of(b.as_bytes()));
    constant_time::verify_slices_are_equal(&a.0, &b.0).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells a client where to get a token. It is where the client is already, by the name that it knows us by.
fn challenge(request: &Request, spot: Option<&Spot>) -> Refusal {
    let host = text(request, header::HOST).or_else(|| request.uri.authority().map(|a| a.as_str()));
    let plain = |host: &&str| host.bytes().all(|c| c.is_ascii_alphanumeric() || b".:-[]_".contains(&c));
    let host = host.filter(plain).unwrap_or("localhost");
    let forwarded = request.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let scheme = if forwarded { "https" } else { "http" };
    let mut wanted = format!("Bearer realm=\"{scheme}://{host}/v2/token\",service=\"dpm\"");
    if let Some((name, _)) = spot.and_then(|_| request.uri.path().strip_prefix("/v2/")?.rsplit_once('/')) {
        let name = name.rsplit_once('/').map_or(name, |(name, _)| name);
        wanted.push_str(&format!(",scope=\"repository:{name}:pull\""));
    }
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "log in with the name and password that the operator gave",
    )
    .with(header::WWW_AUTHENTICATE, wanted)
}

/// The name and password of a request (RFC 7617).
fn basic(request: &Request) -> Option<(String, String)> {
    let (scheme, rest) = text(request, header::AUTHORIZATION)?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
