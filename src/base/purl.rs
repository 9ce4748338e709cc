//! Package URLs of any ecosystem (the package-url specification), as far as everybody must understand them: a text
//! with a type, and where its version stands. What an ecosystem makes of a name is its own.

use std::fmt;

/// Longest package URL in bytes: names reach 255, an image's repository stands in a qualifier too.
pub const MOST_PURL_BYTES: usize = 768;

/// `pkg:type/namespace/name@version?qualifiers`, printable ASCII, without a subpath.
///
/// Compared as text: whoever makes one is to write it in the specification's canonical form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageUrl(Box<str>);

impl PackageUrl {
    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, PackageUrlError> {
        if text.len() > MOST_PURL_BYTES {
            return Err(PackageUrlError::TooLong(text.len()));
        }
        let rest = text.strip_prefix("pkg:").ok_or(PackageUrlError::Scheme)?;
        let (kind, rest) = rest.split_once('/').ok_or(PackageUrlError::Type)?;
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
        if !kind.bytes().next().is_some_and(|c| c.is_ascii_lowercase()) || !kind.bytes().all(letter) {
            return Err(PackageUrlError::Type);
        }
        if rest.bytes().any(|c| !c.is_ascii_graphic() || matches!(c, b'#' | b'"' | b'<' | b'>' | b'\\')) {
            return Err(PackageUrlError::Character);
        }
        let path = rest.split('?').next().unwrap_or_default();
        let (name, version) = path.split_once('@').unwrap_or((path, "1"));
        if version.is_empty() || version.contains(['@', '/']) {
            return Err(PackageUrlError::Version);
        }
        if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(PackageUrlError::Name);
        }
        Ok(Self(text.into()))
    }

    /// From parts that an ecosystem has checked, escaped as the specification says. `name` may have several parts,
    /// `qualifiers` must be sorted by key.
    pub fn of(
        kind: &str,
        name: &str,
        version: Option<&str>,
        qualifiers: &[(&str, &str)],
    ) -> Result<Self, PackageUrlError> {
        let name: Vec<String> = name.split('/').map(escaped).collect();
        let mut text = format!("pkg:{kind}/{}", name.join("/"));
        if let Some(version) = version {
            text += "@";
            text.push_str(&escaped(version));
        }
        for (n, (key, value)) in qualifiers.iter().enumerate() {
            let value: Vec<String> = value.split('/').map(escaped).collect();
            text.push_str(&format!("{}{key}={}", if n == 0 { '?' } else { '&' }, value.join("/")));
        }
        Self::parse(&text)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ecosystem: `pypi`.
    pub fn kind(&self) -> &str {
        let rest = &self.0["pkg:".len()..];
        rest.split('/').next().unwrap_or_default()
    }

    /// The version as written, percent-escapes and all.
    pub fn version(&self) -> Option<&str> {
        self.marked().map(|(at, end)| &self.0[at + 1..end])
    }

    /// The same without its version.
    pub fn package(&self) -> Self {
        match self.marked() {
            Some((at, end)) => Self([&self.0[..at], &self.0[end..]].concat().into()),
            None => self.clone(),
        }
    }

    /// Where `@version` begins and ends.
    fn marked(&self) -> Option<(usize, usize)> {
        let end = self.0.find('?').unwrap_or(self.0.len());
        self.0[..end].find('@').map(|at| (at, end))
    }
}

/// What stands as it is: the specification's "unreserved" and the colon.
fn escaped(part: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'~' | b':');
    part.bytes().fold(String::with_capacity(part.len()), |mut text, c| {
        match plain(c) {
            true => text.push(c as char),
            false => text.push_str(&format!("%{c:02X}")),
        }
        text
    })
}

impl fmt::Display for PackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no package URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageUrlError {
    /// Longer than [`MOST_PURL_BYTES`].
    #[error("a package URL of {0} bytes, {MOST_PURL_BYTES} are allowed")]
    TooLong(usize),
    /// Another kind of text.
    #[error("a package URL begins with pkg:")]
    Scheme,
    /// `pkg:` and no type.
    #[error("a package URL without a type in lower case (pkg:pypi/…)")]
    Type,
    /// Space, control characters, what should be escaped, a subpath.
    #[error("a package URL with a character that it cannot have")]
    Character,
    /// No name, or an empty or climbing part of it.
    #[error("a package URL without a proper name")]
    Name,
    /// Two, or an empty one.
    #[error("a package URL with an empty or doubled version")]
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let rows = [
            ("pkg:pypi/six@1.17.0", "pypi", Some("1.17.0"), "pkg:pypi/six"),
            ("pkg:pypi/six", "pypi", None, "pkg:pypi/six"),
            ("pkg:npm/%40angular/core@1%2B2", "npm", Some("1%2B2"), "pkg:npm/%40angular/core"),
            (
                "pkg:oci/a@sha256:00?repository_url=r.example.org/b@c/a",
                "oci",
                Some("sha256:00"),
                "pkg:oci/a?repository_url=r.example.org/b@c/a",
            ),
            ("pkg:oci/a?x=b@c", "oci", None, "pkg:oci/a?x=b@c"),
        ];
        for (text, kind, version, package) in rows {
            let purl = PackageUrl::parse(text).unwrap();
            assert_eq!((purl.kind(), purl.version()), (kind, version), "{text}");
            assert_eq!(purl.package().as_str(), package);
            assert_eq!(purl.to_string(), text);
        }
    }

    #[test]
    fn what_is_none() {
        use PackageUrlError::*;
        let long = format!("pkg:pypi/{}", "a".repeat(MOST_PURL_BYTES));
        let rows = [
            ("", Scheme),
            ("six", Scheme),
            ("pkg:pypi", Type),
            ("pkg:/six", Type),
            ("pkg:PyPI/six", Type),
            ("pkg:pypi/", Name),
            ("pkg:pypi/a//b", Name),
            ("pkg:pypi/../b", Name),
            ("pkg:pypi/a@", Version),
            ("pkg:pypi/a@1@2", Version),
            ("pkg:pypi/a b", Character),
            ("pkg:pypi/a\0", Character),
            ("pkg:pypi/é", Character),
            ("pkg:pypi/a#sub", Character),
            (long.as_str(), TooLong(long.len())),
        ];
        for (text, error) in rows {
            assert_eq!(PackageUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn made_of_parts() {
        let made = |kind, name, version, qualifiers: &[(&str, &str)]| {
            PackageUrl::of(kind, name, version, qualifiers).unwrap().to_string()
        };
        assert_eq!(made("pypi", "a", Some("1.0+cu121"), &[]), "pkg:pypi/a@1.0%2Bcu121");
        assert_eq!(made("npm", "@angular/core", Some("1.0.0"), &[]), "pkg:npm/%40angular/core@1.0.0");
        let image = made("oci", "a", None, &[("repository_url", "localhost:5000/x/a"), ("tag", "1 2")]);
        assert_eq!(image, "pkg:oci/a?repository_url=localhost:5000/x/a&tag=1%202");
        assert_eq!(PackageUrl::of("pypi", "", None, &[]), Err(PackageUrlError::Name));
    }
}
