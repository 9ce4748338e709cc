//! Why an upstream gave nothing, and what the caller may do about it.

use std::io;
use std::time::Duration;

use url::Url;

use super::resolver::NotGlobal;
use super::transport::{Cut, Trickle, is_cut};

/// Why an upstream gave nothing, or stopped giving.
///
/// No message holds credentials, a path or a query: `origin` is scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The address cannot be asked: scheme, userinfo, length.
    #[error("bad address: {why}")]
    BadUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The question cannot be written as HTTP, or contradicts itself.
    #[error("bad question: {why}")]
    BadAsk {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The configuration does not name this origin, and it leads to no global address.
    #[error("{origin} is not on the public internet and the configuration does not name it")]
    AddressRefused {
        /// Where the request was to go.
        origin: String,
    },
    /// A redirect to where the configuration does not lead, or from HTTPS to HTTP.
    #[error("redirected to {to}, which the configuration does not allow")]
    RedirectRefused {
        /// Origin of the redirect's target.
        to: String,
    },
    /// More redirects than we follow.
    #[error("{origin} redirects too often")]
    RedirectLoop {
        /// Where the last one came from.
        origin: String,
    },
    /// 401 or 403.
    #[error("{origin} answered {status}: set credentials for it, or check those that are set")]
    Denied {
        /// Who denied.
        origin: String,
        /// 401 or 403.
        status: u16,
    },
    /// 429 or 503, now or at an earlier request whose `Retry-After` has not passed.
    #[error("{origin} is busy{}", later(*.retry_after))]
    Busy {
        /// Who is busy.
        origin: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Not asked, because it did not answer several times in a row.
    #[error("{origin} is not asked for a moment: {last}")]
    Avoided {
        /// Who is avoided.
        origin: String,
        /// What went wrong the last time.
        last: String,
        /// When it will be tried again.
        retry_after: Duration,
    },
    /// Any other status.
    #[error("{origin} answered {code}")]
    Status {
        /// Who answered.
        origin: String,
        /// The status code.
        code: u16,
    },
    /// No name, no connection, or closed before an answer.
    #[error("{origin} cannot be reached: {why}")]
    Unreachable {
        /// Who cannot be reached.
        origin: String,
        /// What the system said.
        why: String,
    },
    /// TLS failed: a certificate that does not hold, or no common protocol.
    #[error("{origin} cannot be trusted: {why}")]
    Untrusted {
        /// Whose TLS failed.
        origin: String,
        /// What rustls said.
        why: String,
    },
    /// A time limit passed.
    #[error("{origin} took too long to {phase}")]
    TimedOut {
        /// Who took too long.
        origin: String,
        /// In what.
        phase: Phase,
    },
    /// The body trickles below [`limits::SLOW_BYTES_PER_SECOND`](crate::base::limits::SLOW_BYTES_PER_SECOND).
    #[error("{origin} sends too slowly")]
    TooSlow {
        /// Who trickles.
        origin: String,
    },
    /// The body ended before its end.
    #[error("body cut off after {got} bytes{}", of(*.want))]
    Truncated {
        /// Bytes of body received, as sent.
        got: u64,
        /// Bytes of body announced; `None` when it was chunked.
        want: Option<u64>,
    },
    /// A 206 that was not asked for or covers other bytes, or a 416: ask again without a range.
    #[error("{origin} answered a range badly: {why}")]
    BadRange {
        /// Who answered.
        origin: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A `Content-Encoding` that we cannot undo, or broken gzip.
    #[error("{origin} encoded the body in a way we cannot read: {name}")]
    Encoding {
        /// Who encoded it.
        origin: String,
        /// The encoding.
        name: String,
    },
    /// Not HTTP as we know it.
    #[error("{origin} does not speak proper HTTP: {why}")]
    Protocol {
        /// Who spoke.
        origin: String,
        /// What is wrong, without what was sent.
        why: String,
    },
    /// The client was closed: the program is stopping.
    #[error("stopping")]
    Closed,
}

/// What was under way when a time limit passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Name resolution.
    Resolve,
    /// TCP, proxy and TLS.
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the answer's head.
    Answer,
    /// Waiting for more of the body.
    Body,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve its name",
            Self::Connect => "connect",
            Self::Send => "take the request",
            Self::Answer => "answer",
            Self::Body => "send more of the body",
        })
    }
}

impl UpstreamError {
    /// Whether the same question may be answered later, without a change of configuration.
    pub fn retry(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Avoided { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooSlow { .. }
            | Self::Truncated { .. } => true,
            Self::Status { code, .. } => *code >= 500 || *code == 408,
            Self::BadUrl { .. }
            | Self::BadAsk { .. }
            | Self::AddressRefused { .. }
            | Self::RedirectRefused { .. }
            | Self::RedirectLoop { .. }
            | Self::Denied { .. }
            | Self::Untrusted { .. }
            | Self::BadRange { .. }
            | Self::Encoding { .. }
            | Self::Protocol { .. }
            | Self::Closed => false,
        }
    }

    /// How long the upstream should be left alone, when that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Avoided { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// A short fixed word, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad_url",
            Self::BadAsk { .. } => "bad_ask",
            Self::AddressRefused { .. } => "address_refused",
            Self::RedirectRefused { .. } => "redirect_refused",
            Self::RedirectLoop { .. } => "redirect_loop",
            Self::Denied { .. } => "denied",
            Self::Busy { .. } => "busy",
            Self::Avoided { .. } => "avoided",
            Self::Status { .. } => "status",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
            Self::TimedOut { .. } => "timed_out",
            Self::TooSlow { .. } => "too_slow",
            Self::Truncated { .. } => "truncated",
            Self::BadRange { .. } => "bad_range",
            Self::Encoding { .. } => "encoding",
            Self::Protocol { .. } => "protocol",
            Self::Closed => "closed",
        }
    }

    /// The error behind a failed read of a [`Body`](super::Body).
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the upstream did not answer at all, as far as HTTP goes.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Untrusted { .. })
    }

    /// What went wrong before the head of an answer was there.
    pub(super) fn before_head(error: ureq::Error, origin: &str) -> Self {
        Self::from_ureq(error, origin, Phase::Answer)
    }

    /// What went wrong after `got` of `want` bytes of a body.
    pub(super) fn in_body(error: ureq::Error, origin: &str, got: u64, want: Option<u64>) -> Self {
        match &error {
            ureq::Error::Io(e) if is_cut(e.kind()) => Self::Truncated { got, want },
            ureq::Error::Other(e) if e.is::<Cut>() => Self::Truncated { got, want },
            _ => Self::from_ureq(error, origin, Phase::Body),
        }
    }

    fn from_ureq(error: ureq::Error, origin: &str, reading: Phase) -> Self {
        use ureq::{Error, Timeout};
        let origin = origin.to_owned();
        match error {
            Error::Timeout(timeout) => {
                let phase = match timeout {
                    Timeout::Resolve => Phase::Resolve,
                    Timeout::Connect => Phase::Connect,
                    Timeout::SendRequest | Timeout::PerWrite => Phase::Send,
                    _ => reading,
                };
                Self::TimedOut { origin, phase }
            }
            Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => Self::Untrusted { origin, why: tls.to_string() },
                None if is_cut(e.kind()) => Self::Unreachable { origin, why: CLOSED.into() },
                None => Self::Unreachable { origin, why: e.to_string() },
            },
            Error::HostNotFound => Self::Unreachable { origin, why: "no such host".into() },
            Error::ConnectionFailed => Self::Unreachable { origin, why: "no connection".into() },
            // Holds the proxy's status only.
            Error::ConnectProxyFailed(why) => Self::Unreachable { origin, why },
            Error::Rustls(e) => Self::Untrusted { origin, why: e.to_string() },
            Error::Tls(why) => Self::Untrusted { origin, why: why.into() },
            Error::TlsRequired => Self::Untrusted { origin, why: "no TLS".into() },
            Error::LargeResponseHeader(..) => Self::Protocol { origin, why: "the head is too large".into() },
            // What follows a colon is what was sent: it may be a redirect's query.
            Error::Protocol(e) => {
                let text = e.to_string();
                Self::Protocol { origin, why: text.split(':').next().unwrap_or_default().into() }
            }
            Error::Other(e) if e.is::<NotGlobal>() => Self::AddressRefused { origin },
            Error::Other(e) if e.is::<Trickle>() => Self::TooSlow { origin },
            Error::Other(e) if e.is::<Cut>() => Self::Unreachable { origin, why: CLOSED.into() },
            // `BadUri` and `RequireHttpsOnly` would quote the address.
            _ => Self::Protocol { origin, why: "the HTTP client gave up".into() },
        }
    }
}

impl From<UpstreamError> for io::Error {
    fn from(error: UpstreamError) -> Self {
        let kind = match &error {
            UpstreamError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            UpstreamError::TimedOut { .. } | UpstreamError::TooSlow { .. } => io::ErrorKind::TimedOut,
            UpstreamError::Encoding { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Scheme, host and port: what messages and counters may hold of an address.
pub(super) fn origin_text(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn later(retry_after: Option<Duration>) -> String {
    retry_after.map(|d| format!(", to be asked again in {} s", d.as_secs().max(1))).unwrap_or_default()
}

fn of(want: Option<u64>) -> String {
    want.map(|want| format!(" of {want}")).unwrap_or_default()
}

const CLOSED: &str = "it closed the connection without an answer";
