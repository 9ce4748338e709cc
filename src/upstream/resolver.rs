//! Names to addresses, and the check that keeps unnamed hosts off private networks.
//!
//! The check sits in ureq's resolver, so that the address that was judged is the one connected to: a name that
//! answers differently the second time (DNS rebinding) gains nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::base::reach::is_global;

/// What a request's origin may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// The configuration names this origin: any address.
    Anywhere,
    /// Some page or redirect named it: global addresses only.
    Internet,
    /// Some page or redirect named it, and it leads to the very address and port of the upstream itself, as it
    /// does where a network stands in for the internet (a mirroring proxy, split DNS): this address, and global
    /// ones.
    Home(SocketAddr),
}

/// ureq's resolver for one [`Reach`].
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) reach: Reach,
    pub(super) names: Arc<Names>,
    /// Host and port of the configured proxy, which may be anywhere.
    pub(super) proxy: Option<(String, u16)>,
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(default);
        // With a proxy ureq resolves nothing but the proxy here; `Client` has judged the target before.
        let is_proxy = self.proxy.as_ref().is_some_and(|(h, p)| h == host && *p == port);
        let reach = if is_proxy { Reach::Anywhere } else { self.reach };

        let addresses = self.names.lookup(host, port, *timeout.after).map_err(|e| match e {
            LookupError::TimedOut => ureq::Error::Timeout(timeout.reason),
            LookupError::Failed(e) => ureq::Error::Io(e),
        })?;
        let mut resolved = self.empty();
        for address in allowed(&addresses, reach).take(MOST_ADDRESSES) {
            resolved.push(address);
        }
        match resolved.is_empty() {
            true if addresses.is_empty() => Err(ureq::Error::HostNotFound),
            true => Err(ureq::Error::Other(Box::new(NotGlobal))),
            false => Ok(resolved),
        }
    }
}

/// Those of `addresses` that `reach` permits.
///
/// A name with both kinds keeps its global ones: what is left is judged, so nothing slips through.
pub(super) fn allowed(addresses: &[SocketAddr], reach: Reach) -> impl Iterator<Item = SocketAddr> + '_ {
    addresses.iter().copied().filter(move |a| match reach {
        Reach::Anywhere => true,
        Reach::Internet => is_global(a.ip()),
        Reach::Home(home) => *a == home || is_global(a.ip()),
    })
}

/// Lower-case host, and port.
type HostPort = (String, u16);

/// When it was learned, and what.
type Known = (Instant, Vec<SocketAddr>);

/// The system's resolver with a short memory.
///
/// ureq resolves for every request, also when it then takes a pooled connection; without the memory each of them
/// would cost a thread.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<HashMap<HostPort, Known>>,
    running: Arc<AtomicUsize>,
}

impl Names {
    /// Addresses of `host` (a name, or a literal with or without brackets), waiting at most `limit`.
    pub(super) fn lookup(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, LookupError> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let key = (host.to_ascii_lowercase(), port);
        let now = Instant::now();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((since, addresses)) = known.get(&key)
                && now.duration_since(*since) < MEMORY_TIME
            {
                return Ok(addresses.clone());
            }
        }
        let addresses = self.ask_system(key.clone(), limit)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MEMORY_NAMES {
            known.retain(|_, (since, _)| now.duration_since(*since) < MEMORY_TIME);
        }
        if known.len() < MEMORY_NAMES {
            known.insert(key, (now, addresses.clone()));
        }
        Ok(addresses)
    }

    /// `getaddrinfo` on a thread of its own, as it takes no time limit.
    ///
    /// An abandoned one ends when the system's resolver gives up; their number is bounded.
    fn ask_system(&self, key: HostPort, limit: Duration) -> Result<Vec<SocketAddr>, LookupError> {
        let slot = Slot::take(&self.running)?;
        let (tx, rx) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("dpm-resolve".into())
            .spawn(move || {
                let _slot = slot;
                let found = (key.0.as_str(), key.1).to_socket_addrs().map(Iterator::collect);
                // Fails only when nobody waits any more.
                drop(tx.send(found));
            })
            .map_err(LookupError::Failed)?;
        match rx.recv_timeout(limit) {
            Ok(found) => found.map_err(LookupError::Failed),
            Err(RecvTimeoutError::Timeout) => Err(LookupError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LookupError::Failed(io::Error::other("the resolver's thread died")))
            }
        }
    }
}

/// One of the lookups that may run at once.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(running: &Arc<AtomicUsize>) -> Result<Self, LookupError> {
        let slot = Self(running.clone());
        if running.fetch_add(1, Ordering::Relaxed) >= LOOKUPS {
            return Err(LookupError::Failed(io::Error::other("too many name lookups are waiting")));
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long an answer is remembered: `getaddrinfo` does not tell the record's own time, CDNs use 20 to 60 s.
const MEMORY_TIME: Duration = Duration::from_secs(10);

/// Most names remembered; further ones are asked each time.
const MEMORY_NAMES: usize = 256;

/// Most lookups at once, abandoned ones included: twice the downloads that may run.
const LOOKUPS: usize = 2 * crate::base::limits::DOWNLOADS;

/// What ureq's fixed array of addresses holds.
const MOST_ADDRESSES: usize = 16;

/// Why a name has no addresses.
#[derive(Debug)]
pub(super) enum LookupError {
    TimedOut,
    Failed(io::Error),
}

/// Travels through ureq as `Error::Other`: the name leads to no address that is permitted.
#[derive(Debug, thiserror::Error)]
#[error("not a global address")]
pub(super) struct NotGlobal;

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(reach: Reach) -> Guard {
        Guard { reach, names: Arc::default(), proxy: Some(("10.1.1.1".into(), 3128)) }
    }

    fn resolve(reach: Reach, uri: &str) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let timeout = NextTimeout { after: Duration::from_secs(5).into(), ..NextTimeout::default() };
        guard(reach).resolve(&uri.parse().unwrap(), &Config::default(), timeout)
    }

    #[test]
    fn literals_and_names_meet_the_same_check() {
        for uri in [
            "http://127.0.0.1/",
            "https://[::1]/",
            "http://[::ffff:10.0.0.1]:8080/",
            "http://169.254.169.254/",
            "http://localhost/",
            "https://[fd00::1]:444/",
            "http://10.1.1.1:3129/",
        ] {
            let error = resolve(Reach::Internet, uri).unwrap_err();
            assert!(matches!(&error, ureq::Error::Other(e) if e.is::<NotGlobal>()), "{uri}: {error:?}");
            assert!(!resolve(Reach::Anywhere, uri).unwrap().is_empty(), "{uri}");
        }
        let cases = [("https://8.8.8.8/", "8.8.8.8:443"), ("http://[2606:4700::1]:81/", "[2606:4700::1]:81")];
        for (uri, want) in cases {
            assert_eq!(resolve(Reach::Internet, uri).unwrap()[0], want.parse().unwrap());
        }
        assert!(resolve(Reach::Internet, "http://10.1.1.1:3128/").is_ok(), "the proxy itself");
    }

    #[test]
    fn a_name_with_both_kinds_keeps_the_global_ones() {
        let both: Vec<SocketAddr> = vec!["10.0.0.1:80".parse().unwrap(), "8.8.8.8:80".parse().unwrap()];
        assert_eq!(allowed(&both, Reach::Internet).collect::<Vec<_>>(), both[1..]);
        assert_eq!(allowed(&both, Reach::Anywhere).count(), 2);
        assert_eq!(allowed(&both, Reach::Home(both[0])).count(), 2);
        let other_port = SocketAddr::new(both[0].ip(), both[0].port() + 1);
        assert_eq!(
            allowed(&both, Reach::Home(other_port)).collect::<Vec<_>>(),
            both[1..],
            "another service there"
        );
    }
}
