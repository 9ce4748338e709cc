//! Everything that is set in ureq, each with its reason, and the CA store.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Proxy};
use url::Url;

use super::UpstreamError;
use super::resolver::{Guard, Names, Reach};
use super::transport::{Pace, Strictness};
use crate::base::limits;

/// How a [`Client`](super::Client) behaves. The defaults are those of [`limits`].
#[derive(Clone)]
pub struct Options {
    /// HTTP or HTTPS proxy that every request goes through, by `CONNECT`; may carry credentials.
    pub proxy: Option<Url>,
    /// `User-Agent` of every request: some registries refuse requests without one.
    pub user_agent: String,
    /// What this node calls itself to those behind it (`CDN-Loop`), so that nodes in front of each other do not ask in a
    /// circle. Upstreams that are no dpm see it too: it should say nothing of who we are. `None` says nothing at all.
    pub node: Option<String>,
    /// Time to resolve a name.
    pub resolve_time: Duration,
    /// Time to connect, TLS included.
    pub connect_time: Duration,
    /// Time from the sent request to the answer's whole head.
    pub answer_time: Duration,
    /// Time in which some bytes must come.
    pub stall_time: Duration,
    /// Least speed in bytes a second, averaged over `slow_time` of waiting.
    pub slow_bytes_per_second: u64,
    /// See `slow_bytes_per_second`.
    pub slow_time: Duration,
    /// Pauses before the second and the third try; each is shortened at random by up to a half.
    pub pauses: [Duration; 2],
    /// How long an origin that did not answer several times in a row is not asked.
    pub avoid_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy: None,
            user_agent: concat!("dpm/", env!("CARGO_PKG_VERSION")).into(),
            node: None,
            // glibc waits 5 s for its first name server: less would never ask the second.
            resolve_time: limits::CONNECT_TIME,
            connect_time: limits::CONNECT_TIME,
            answer_time: limits::ANSWER_TIME,
            stall_time: limits::UPSTREAM_STALL_TIME,
            slow_bytes_per_second: limits::SLOW_BYTES_PER_SECOND,
            slow_time: limits::SLOW_TIME,
            pauses: [Duration::from_millis(200), Duration::from_millis(800)],
            avoid_time: Duration::from_secs(5),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The proxy may carry a password.
        f.debug_struct("Options").field("user_agent", &self.user_agent).finish_non_exhaustive()
    }
}

/// A ureq agent: its connections and its rules. `roots` is needed for HTTPS only.
pub(super) fn agent(
    options: &Options,
    reach: Reach,
    names: Arc<Names>,
    roots: Option<RootCerts>,
) -> Result<Agent, UpstreamError> {
    let proxy = options.proxy.as_ref().map(parse_proxy).transpose()?;
    let proxy_host = proxy.as_ref().map(|p| (p.host().to_owned(), p.port()));
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        // Given here and not installed for the process: nobody has to be first.
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        // Without a store no certificate is good: plain HTTP does not look at it.
        .root_certs(roots.unwrap_or_else(|| RootCerts::new_with_certs(&[])))
        .build();
    let config = Agent::config_builder()
        // 304 and 404 are answers here.
        .http_status_as_error(false)
        // We follow ourselves: a redirect may lead where the configuration does not.
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Otherwise read from the environment, where dpm itself may be named.
        .proxy(proxy)
        .user_agent(options.user_agent.as_str())
        // Set on every request too: ureq must never pick one.
        .accept_encoding("identity")
        // ureq sets no timeout at all. None on a whole body: a large one takes as long as it takes.
        .timeout_resolve(Some(options.resolve_time))
        .timeout_connect(Some(options.connect_time))
        .timeout_send_request(Some(options.answer_time))
        .timeout_recv_response(Some(options.answer_time))
        .timeout_per_read(Some(options.stall_time))
        .timeout_per_write(Some(options.stall_time))
        .max_response_header_size(HEADER_BYTES)
        .input_buffer_size(INPUT_BYTES)
        .output_buffer_size(OUTPUT_BYTES)
        // As many as may download at once, so that a burst finds its connections again.
        .max_idle_connections_per_host(limits::DOWNLOADS)
        .max_idle_connections(2 * limits::DOWNLOADS)
        .max_idle_age(IDLE_TIME)
        .no_delay(true)
        .tls_config(tls)
        .build();
    let pace = Pace { bytes_per_second: options.slow_bytes_per_second, over: options.slow_time };
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(pace)
            .chain(RustlsConnector::default())
            .chain(Strictness);
    Ok(Agent::with_parts(config, connector, Guard { reach, names, proxy: proxy_host }))
}

/// Refuses what ureq would panic on later (SOCKS without its feature).
fn parse_proxy(url: &Url) -> Result<Proxy, UpstreamError> {
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(UpstreamError::BadUrl { why: "a proxy is http://host:port or https://host:port" });
    }
    Proxy::new(url.as_str()).map_err(|_| UpstreamError::BadUrl { why: "not a proxy" })
}

/// The system's CA certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// Takes tens of milliseconds, so it is left until the first HTTPS request.
pub(super) fn load_roots() -> Result<RootCerts, UpstreamError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("CA store: {error}");
    }
    if found.certs.is_empty() {
        return Err(UpstreamError::Untrusted {
            origin: "every https origin".into(),
            why: "no CA certificates on this machine: install ca-certificates or set SSL_CERT_FILE".into(),
        });
    }
    let certs = found.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned());
    Ok(RootCerts::from(certs))
}

/// Largest head of an answer; must stay below [`INPUT_BYTES`], or ureq sees a closed connection instead.
///
/// Servers' own limits are 8 to 16 KiB.
const HEADER_BYTES: usize = 24 << 10;

/// Bytes read at once. 64 downloads hold one of these each, two with TLS: 4 MiB.
const INPUT_BYTES: usize = 32 << 10;

/// Holds a line of the request's head in one piece: signed CDN addresses reach 4 KiB, registries' tokens as much.
const OUTPUT_BYTES: usize = 16 << 10;

/// Longest address that is asked, in bytes: servers' own limits begin at 8 KiB; leaves room in [`OUTPUT_BYTES`].
pub(super) const URL_BYTES: usize = 7680;

/// Longest token that is sent, in bytes: leaves room in [`OUTPUT_BYTES`] for the rest of the line.
pub(super) const TOKEN_BYTES: usize = OUTPUT_BYTES - 512;

/// Below the 60 to 75 s after which servers close, so that a request rarely meets a closing connection.
const IDLE_TIME: Duration = Duration::from_secs(30);
