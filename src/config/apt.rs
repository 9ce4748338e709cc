//! apt's sources: what dpm, as a proxy, answers for.

use url::Url;

use super::index::{http_url, is_loopback, looks_internal, without_userinfo};
use super::machine::Machine;
use super::{BadUrl, Origin};

/// A source of apt's that is answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    /// Where it is: plain http, ends with `/`, without a user, query or fragment.
    pub url: Url,
    /// Its files are not for everybody: never shown to peers.
    pub private: bool,
    /// Who named it.
    pub origin: Origin,
}

impl AptSource {
    /// A source at a URL as it stands in apt's list. One that was learned, at a host of a private network, is private.
    pub fn from_url(url: &str, origin: Origin) -> Result<Self, BadSource> {
        let mut url = http_url(url)?;
        if url.scheme() != "http" {
            return Err(BadSource::Https);
        }
        if url != without_userinfo(&url) {
            return Err(BadSource::User);
        }
        if url.query().is_some() {
            return Err(BadSource::Url(BadUrl::Query));
        }
        url.set_fragment(None);
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let private = matches!(origin, Origin::Learned(_)) && looks_internal(&url);
        Ok(Self { url, private, origin })
    }
}

/// The sources that this machine's apt uses over plain http; none where there is no apt.
///
/// Runs `apt-get` once, for at most [`RUN_TIME`](super::RUN_TIME). Blocks.
pub fn learn_apt(machine: &Machine, own_port: u16) -> Vec<AptSource> {
    let Some(program) = machine.find("apt-get") else { return Vec::new() };
    let text = match machine.run(&program, ASK, &[]) {
        Ok(text) => text,
        Err(e) => {
            log::warn!("apt's sources are not known: {} {}: {e}", program.display(), ASK.join(" "));
            return Vec::new();
        }
    };
    let mut sources: Vec<AptSource> = Vec::new();
    let mut passed: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match AptSource::from_url(line, Origin::Learned(format!("apt-get {}", ASK[0]))) {
            Ok(source) if sources.iter().any(|has| has.url == source.url) => {}
            Ok(source)
                if is_loopback(&source.url) && source.url.port_or_known_default() == Some(own_port) => {}
            Ok(source) => sources.push(source),
            // One line for each of its files.
            Err(_) if passed.contains(&line) => {}
            Err(e) => {
                log::debug!("passing over a source of apt's: {e}");
                passed.push(line);
            }
        }
    }
    sources
}

/// One line for each index file: the URI of its repository.
const ASK: &[&str] = &["indextargets", "--format", "$(REPO_URI)"];

/// Why a text is no source. Never repeats the text: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// No URL that can be one.
    #[error("{0}")]
    Url(#[from] BadUrl),
    /// apt does not ask a proxy for https, but for a tunnel.
    #[error(
        "apt asks a proxy for http sources only: write http://, or leave it to apt (Acquire::https::Proxy \"DIRECT\")"
    )]
    Https,
    /// Credentials.
    #[error("a source that needs a user is not answered for")]
    User,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn sources() {
        let cases = [
            ("http://deb.example.org/debian", Ok("http://deb.example.org/debian/")),
            ("http://deb.example.org", Ok("http://deb.example.org/")),
            ("http://deb.example.org/debian//#x", Ok("http://deb.example.org/debian/")),
            ("https://deb.example.org/debian", Err(BadSource::Https)),
            ("http://u:p@deb.example.org/debian", Err(BadSource::User)),
            ("http://deb.example.org/?x", Err(BadSource::Url(BadUrl::Query))),
            ("file:///media/debian", Err(BadSource::Url(BadUrl::Scheme))),
            ("debian", Err(BadSource::Url(BadUrl::NotUrl))),
        ];
        for (text, want) in cases {
            let got = AptSource::from_url(text, Origin::Flag).map(|source| source.url.to_string());
            assert_eq!(got.as_deref().map_err(|e| *e), want, "{text}");
        }
    }

    #[test]
    fn from_apt_itself() {
        let dir = tempfile::tempdir().unwrap();
        let vars = [("PATH".into(), dir.path().into())].into();
        let machine = Machine { vars, root: dir.path().into(), superuser: false };
        assert_eq!(learn_apt(&machine, 3142), []);
        let program = dir.path().join("apt-get");
        let script = "#!/bin/sh\n[ \"$*\" = 'indextargets --format $(REPO_URI)' ] || exit 1\n\
            for uri in http://deb.example.org/debian/ https://s.example.org/ http://deb.example.org/debian/ \
            file:/media/x http://localhost:3142/x/ http://nexus/apt/; do echo $uri; done\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let learned: Vec<_> =
            learn_apt(&machine, 3142).into_iter().map(|s| (s.url.to_string(), s.private)).collect();
        let want = [("http://deb.example.org/debian/", false), ("http://nexus/apt/", true)];
        assert_eq!(learned, want.map(|(url, private)| (url.to_owned(), private)));
        std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
        assert_eq!(learn_apt(&machine, 3142), []);
    }
}
