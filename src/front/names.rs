//! The names under which this box is asked, and what is told under no other.
//!
//! A web page elsewhere can have a name of its own lead here ("DNS rebinding"): its scripts then read what this box
//! answers, as if it were their own server. Such a request says that name. Packages are for everybody who can connect;
//! what is stored here, and who is near, is not.

use std::net::IpAddr;

use http::header;
use http::request::Parts as Request;

/// This box's own names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// In lower case, `NAME.local` among them.
    names: Vec<String>,
    /// Where it listens.
    port: u16,
}

impl Names {
    /// `names` are whole names, in any case; under `.local` a number that the network has put behind one counts too.
    pub fn new(names: impl IntoIterator<Item = String>, port: u16) -> Self {
        Self { names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(), port }
    }

    /// Whether a request is to this box by a name of its own, or by no name at all: an address is nobody's to give.
    pub(super) fn are_meant(&self, request: &Request) -> bool {
        let host = host(request);
        host.is_empty() || self.is_ours(name(host))
    }

    /// Whether a target's authority is this box.
    pub(super) fn is_here(&self, authority: &str) -> bool {
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
            _ => Some(80),
        };
        port == Some(self.port) && self.is_ours(name(authority))
    }

    fn is_ours(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || self.names.contains(&name)
            || self.numbered(&name)
    }

    /// `dpm-2.local` is `dpm.local` on a network where that was taken.
    fn numbered(&self, name: &str) -> bool {
        let base = name.strip_suffix(LOCAL).and_then(|label| label.rsplit_once('-'));
        base.is_some_and(|(base, number)| {
            number.parse::<u16>().is_ok() && self.names.contains(&format!("{base}{LOCAL}"))
        })
    }
}

const LOCAL: &str = ".local";

/// Whom a request is to, as it says; nothing where it does not.
pub(super) fn host(request: &Request) -> &str {
    let host = request.headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    // In absolute form the target outweighs the header (RFC 9112 §3.2.2).
    request.uri.authority().map(|a| a.as_str()).or(host).unwrap_or_default()
}

/// A host without its port and brackets.
pub(super) fn name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(
            ["Box".to_owned(), "box.local".into(), "dpm.local".into(), "cache.example.org".into()],
            3142,
        )
    }

    #[test]
    fn whose_names() {
        let cases = [
            ("127.0.0.1:3142", true),
            ("192.0.2.7", true),
            ("[2001:db8::1]:3142", true),
            ("localhost:9", true),
            ("box", true),
            ("BOX:3142", true),
            ("box.local.", true),
            ("dpm.local:3142", true),
            ("dpm-2.local", true),
            ("cache.example.org", true),
            ("", true),
            ("dpm-x.local", false),
            ("dpm-2", false),
            ("box.example.org", false),
            ("evil.example.org:3142", false),
            ("127.0.0.1.example.org", false),
            ("localhost.example.org", false),
        ];
        for (host, want) in cases {
            let request = http::Request::get("/metrics").header(header::HOST, host).body(()).unwrap();
            assert_eq!(names().are_meant(&request.into_parts().0), want, "{host}");
        }
        let request =
            http::Request::get("/metrics").header(header::HOST, b"\xff".as_slice()).body(()).unwrap();
        assert!(!names().are_meant(&request.into_parts().0));
        let full = http::Request::get("http://evil.example.org/metrics").header(header::HOST, "localhost");
        assert!(
            !names().are_meant(&full.body(()).unwrap().into_parts().0),
            "the target outweighs the header"
        );
    }

    #[test]
    fn where_we_are() {
        let here = ["127.0.0.1:3142", "box:3142", "[::1]:3142"];
        let elsewhere =
            ["127.0.0.1", "box", "[::1]", "deb.example.org:3142", "box:3143", "box:x", "u@box:3142"];
        for (authority, want) in here.map(|a| (a, true)).into_iter().chain(elsewhere.map(|a| (a, false))) {
            assert_eq!(names().is_here(authority), want, "{authority}");
        }
        assert!(Names::new([], 80).is_here("127.0.0.1"));
    }
}
