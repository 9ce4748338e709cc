//! What a room mirrors: package URLs, and patterns of them. Only these are ever advertised in it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MOST_WRITTEN_BYTES, RoomError, VERSION, read};
use crate::base::{PackageUrl, PackageUrlError};

/// Most patterns in one event; a content of 64 KiB holds fewer anyway.
pub const MOST_PATTERNS: usize = 4096;

/// Most stars in a pattern.
const MOST_STARS: usize = 8;

/// Most patterns with stars in a scope: each is held against every package.
const MOST_WITH_STARS: usize = 1024;

/// Most packages and patterns in a scope: sixty events.
const MOST_IN_SCOPE: usize = 100_000;

/// A package URL in which `*` stands for any characters, none included.
///
/// Without a version it means every version. An image's digest or tag says which one a mirror is to have; what may be
/// told of are all of its repository, since layers belong to no one image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Checks a text: a package URL, were its stars letters. The type must be stated.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        PackageUrl::parse(&text.replace('*', "x"))?;
        let kind = text.split('/').next().unwrap_or_default();
        if kind.contains('*') {
            return Err(PatternError::Type);
        }
        match text.matches('*').count() > MOST_STARS {
            true => Err(PatternError::Stars),
            false => Ok(Self(text.to_owned())),
        }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it means more than one package.
    pub fn has_stars(&self) -> bool {
        self.0.contains('*')
    }

    /// The same of all versions: without a version, an image's digest or its tag.
    fn package(&self) -> String {
        let (path, qualifiers) = self.0.split_at(self.0.find('?').unwrap_or(self.0.len()));
        let package = path.split('@').next().unwrap_or_default();
        if !self.is_image() {
            return format!("{package}{qualifiers}");
        }
        let kept: Vec<_> = qualifiers.split(['?', '&']).filter(|q| !q.starts_with("tag=")).collect();
        format!("{package}{}", kept.join("&").replacen('&', "?", 1))
    }

    fn is_image(&self) -> bool {
        self.0.starts_with("pkg:oci/")
    }

    /// Whether it means this package.
    pub fn matches(&self, purl: &PackageUrl) -> bool {
        if self.is_image() {
            return fits(&self.package(), purl.as_str());
        }
        let path = self.0.split('?').next().unwrap_or_default();
        match path.contains('@') {
            true => fits(&self.0, purl.as_str()),
            false => fits(&self.0, purl.package().as_str()),
        }
    }
}

impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&PackageUrl> for Pattern {
    fn from(purl: &PackageUrl) -> Self {
        Self(purl.to_string())
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        // The leftmost place is always good enough: what follows only needs room.
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// All that a room mirrors: what its scope events say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    exact: BTreeSet<Pattern>,
    /// The same without versions, and images without digest or tag.
    packages: HashSet<String>,
    patterns: Vec<Pattern>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u64,
    packages: Vec<String>,
}

impl Scope {
    /// Reads one event's content and adds what it says. Whether its sender may say so is the room's power levels' to
    /// decide. Adds nothing when anything is wrong with it.
    pub fn add(&mut self, json: &[u8]) -> Result<(), RoomError> {
        self.extend(read_patterns(json)?)
    }

    /// Adds these, or none of them when they are too many.
    pub fn extend(&mut self, patterns: impl IntoIterator<Item = Pattern>) -> Result<(), RoomError> {
        let (starred, exact): (Vec<_>, Vec<_>) = patterns.into_iter().partition(Pattern::has_stars);
        if self.patterns.len() + starred.len() > MOST_WITH_STARS {
            return Err(RoomError::TooMany { what: "patterns with stars", limit: MOST_WITH_STARS });
        }
        if self.len() + starred.len() + exact.len() > MOST_IN_SCOPE {
            return Err(RoomError::TooMany { what: "packages in the scope", limit: MOST_IN_SCOPE });
        }
        self.patterns.extend(starred);
        self.packages.extend(exact.iter().map(Pattern::package));
        self.exact.extend(exact);
        Ok(())
    }

    /// Whether the room mirrors this package.
    pub fn has(&self, purl: &PackageUrl) -> bool {
        let is_exact = |text: &str| self.exact.contains(text);
        is_exact(purl.as_str())
            || is_exact(purl.package().as_str())
            || purl.kind() == "oci" && self.packages.contains(purl.as_str())
            || self.patterns.iter().any(|pattern| pattern.matches(purl))
    }

    /// Whether the room mirrors any version of a package (a URL without version).
    pub fn touches(&self, package: &PackageUrl) -> bool {
        self.packages.contains(package.as_str())
            || self.patterns.iter().any(|pattern| fits(&pattern.package(), package.as_str()))
    }

    /// The packages and patterns, in order.
    pub fn patterns(&self) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.exact.iter().map(Pattern::as_str).chain(self.patterns.iter().map(Pattern::as_str)).collect();
        all.sort_unstable();
        all
    }

    /// How many packages and patterns.
    pub fn len(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    /// Whether it mirrors nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The patterns of one event.
pub fn read_patterns(json: &[u8]) -> Result<Vec<Pattern>, RoomError> {
    let raw: Raw = read(json)?;
    if raw.packages.len() > MOST_PATTERNS {
        return Err(RoomError::TooMany { what: "patterns in an event", limit: MOST_PATTERNS });
    }
    Ok(raw.packages.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?)
}

/// Contents of as many scope events as these take, each within [`MOST_WRITTEN_BYTES`]; one for none.
pub fn scope_parts(patterns: &[Pattern]) -> Result<Vec<String>, RoomError> {
    let mut parts = vec![Part::default()];
    for pattern in patterns {
        if !parts.last().is_some_and(|part| part.has_space(pattern)) {
            parts.push(Part::default());
        }
        if let Some(part) = parts.last_mut() {
            part.put(pattern.clone());
        }
    }
    parts.iter().map(Part::content).collect()
}

/// State key and content of the events that make a room's scope `wanted`, where `present` are those that it has, by
/// their keys. As few as that takes: what stands in an event stays there. One of which nothing is left is `{}`.
pub fn rearranged(
    present: &BTreeMap<String, Vec<Pattern>>,
    wanted: &BTreeSet<Pattern>,
) -> Result<Vec<(String, String)>, RoomError> {
    let mut left = wanted.clone();
    let mut parts: Vec<(String, Part, bool)> = Vec::new();
    for (key, patterns) in present {
        let mut part = Part::default();
        patterns.iter().filter(|pattern| left.remove(*pattern)).for_each(|pattern| part.put(pattern.clone()));
        let changed = part.patterns.len() != patterns.len();
        parts.push((key.clone(), part, changed));
    }
    let mut keys = (0..).map(|n| format!("scope-{n}")).filter(|key| !present.contains_key(key));
    let mut at = 0;
    for pattern in left {
        while parts.get(at).is_some_and(|(_, part, _)| !part.has_space(&pattern)) {
            at += 1;
        }
        if at == parts.len() {
            parts.push((keys.next().unwrap_or_default(), Part::default(), true));
        }
        let (_, part, changed) = &mut parts[at];
        part.put(pattern);
        *changed = true;
    }
    let changed = parts.into_iter().filter(|(.., changed)| *changed);
    changed
        .map(|(key, part, _)| match part.patterns.is_empty() {
            true => Ok((key, "{}".to_owned())),
            false => Ok((key, part.content()?)),
        })
        .collect()
}

/// What is to stand in one event.
#[derive(Default)]
struct Part {
    patterns: Vec<Pattern>,
    bytes: usize,
}

impl Part {
    fn has_space(&self, pattern: &Pattern) -> bool {
        self.bytes + Self::bytes(pattern) <= MOST_WRITTEN_BYTES - 64 && self.patterns.len() < MOST_PATTERNS
    }

    fn put(&mut self, pattern: Pattern) {
        self.bytes += Self::bytes(&pattern);
        self.patterns.push(pattern);
    }

    /// With quotes and a comma; a package URL has nothing to escape.
    fn bytes(pattern: &Pattern) -> usize {
        pattern.0.len() + 3
    }

    fn content(&self) -> Result<String, RoomError> {
        let packages = self.patterns.iter().map(|pattern| pattern.0.clone()).collect();
        serde_json::to_string(&Raw { version: VERSION, packages }).map_err(|e| RoomError::Json(e.to_string()))
    }
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No package URL, even were its stars letters.
    #[error(transparent)]
    Purl(#[from] PackageUrlError),
    /// A star in the type.
    #[error("a pattern must name the type of its packages (pkg:pypi/*)")]
    Type,
    /// More stars than anybody needs.
    #[error("a pattern with more than {MOST_STARS} stars")]
    Stars,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patterns_mean() {
        let rows = [
            ("pkg:pypi/six", "pkg:pypi/six@1.17.0", true),
            ("pkg:pypi/six", "pkg:pypi/six", true),
            ("pkg:pypi/six@1.17.0", "pkg:pypi/six@1.17.0", true),
            ("pkg:pypi/six@1.17.0", "pkg:pypi/six@1.17.1", false),
            ("pkg:pypi/six@1.*", "pkg:pypi/six@1.17.1", true),
            ("pkg:pypi/six@1.*", "pkg:pypi/six", false),
            ("pkg:pypi/corp-*", "pkg:pypi/corp-a@1", true),
            ("pkg:pypi/corp-*", "pkg:pypi/corp", false),
            ("pkg:pypi/*", "pkg:npm/x@1", false),
            ("pkg:npm/%40corp/*", "pkg:npm/%40corp/a@1", true),
            ("pkg:oci/*?repository_url=r.example.org/*", "pkg:oci/a?repository_url=r.example.org/b/a", true),
            ("pkg:oci/*?repository_url=r.example.org/*", "pkg:oci/a?repository_url=q.example.org/b/a", false),
            (
                "pkg:oci/a?repository_url=r.example.org/a&tag=1",
                "pkg:oci/a?repository_url=r.example.org/a",
                true,
            ),
            (
                "pkg:oci/a@sha256:00?repository_url=r.example.org/a",
                "pkg:oci/a?repository_url=r.example.org/a",
                true,
            ),
            (
                "pkg:oci/a?repository_url=r.example.org/a&tag=1",
                "pkg:oci/b?repository_url=r.example.org/b",
                false,
            ),
            (
                "pkg:oci/*?repository_url=r.example.org/*&tag=1",
                "pkg:oci/a?repository_url=r.example.org/a",
                true,
            ),
            ("pkg:pypi/*a*b*c", "pkg:pypi/xaybzc", true),
            ("pkg:pypi/*a*b*c", "pkg:pypi/xbyazc", false),
        ];
        for (pattern, purl, want) in rows {
            let purl = PackageUrl::parse(purl).unwrap();
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&purl), want, "{pattern} {purl}");
            let mut scope = Scope::default();
            scope.add(scope_parts(&[Pattern::parse(pattern).unwrap()]).unwrap()[0].as_bytes()).unwrap();
            assert_eq!(scope.has(&purl), want, "{pattern} {purl}");
            assert!(scope.touches(&purl.package()) || !want, "{pattern} {purl}");
        }
        let mut scope = Scope::default();
        let patterns = ["pkg:pypi/six@1.17.0", "pkg:pypi/corp-*@1.*"].map(|p| Pattern::parse(p).unwrap());
        scope.add(scope_parts(&patterns).unwrap()[0].as_bytes()).unwrap();
        for (package, want) in [
            ("pkg:pypi/six", true),
            ("pkg:pypi/corp-a", true),
            ("pkg:pypi/sixer", false),
            ("pkg:pypi/si", false),
        ] {
            assert_eq!(scope.touches(&PackageUrl::parse(package).unwrap()), want, "{package}");
        }
        assert_eq!(scope.patterns(), ["pkg:pypi/corp-*@1.*", "pkg:pypi/six@1.17.0"]);
        for (text, error) in [
            ("*", PatternError::Purl(PackageUrlError::Scheme)),
            ("pkg:*", PatternError::Purl(PackageUrlError::Type)),
            ("pkg:*/six", PatternError::Type),
            ("pkg:py*/six", PatternError::Type),
            ("pkg:pypi/*********", PatternError::Stars),
            ("pkg:pypi/a b", PatternError::Purl(PackageUrlError::Character)),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_large_scope_takes_several_events() {
        let patterns: Vec<Pattern> =
            (0..10_000).map(|n| Pattern::parse(&format!("pkg:pypi/package-{n}@1.{n}.0")).unwrap()).collect();
        let parts = scope_parts(&patterns).unwrap();
        assert!((6..12).contains(&parts.len()), "{}", parts.len());
        let mut scope = Scope::default();
        for part in &parts {
            assert!(part.len() <= MOST_WRITTEN_BYTES);
            scope.add(part.as_bytes()).unwrap();
        }
        assert_eq!(scope.len(), patterns.len());
        assert!(scope.has(&PackageUrl::parse("pkg:pypi/package-77@1.77.0").unwrap()));
        assert!(!scope.has(&PackageUrl::parse("pkg:pypi/package-77@1.78.0").unwrap()));
        assert_eq!(scope_parts(&[]).unwrap(), [r#"{"version":1,"packages":[]}"#]);
    }

    #[test]
    fn as_few_events_as_a_change_takes() {
        let all = |range: std::ops::Range<u32>| -> BTreeSet<Pattern> {
            range.map(|n| Pattern::parse(&format!("pkg:pypi/package-{n:05}@1")).unwrap()).collect()
        };
        let mut present = BTreeMap::new();
        let apply = |present: &mut BTreeMap<_, _>, wanted: &BTreeSet<Pattern>| {
            let changes = rearranged(present, wanted).unwrap();
            for (key, content) in &changes {
                match content.as_str() {
                    "{}" => drop(present.remove(key)),
                    content => drop(present.insert(key.clone(), read_patterns(content.as_bytes()).unwrap())),
                }
            }
            let there: BTreeSet<_> = present.values().flatten().cloned().collect();
            assert_eq!(there, *wanted);
            changes.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(apply(&mut present, &all(0..0)), [""; 0]);
        let first = apply(&mut present, &all(0..4000));
        assert_eq!(first, ["scope-0", "scope-1", "scope-2"]);
        assert_eq!(apply(&mut present, &all(0..4000)), [""; 0], "there is nothing to change");
        assert_eq!(apply(&mut present, &all(0..4001)), ["scope-2"], "where there is space");
        assert_eq!(apply(&mut present, &all(1..4001)), ["scope-0"]);
        assert_eq!(apply(&mut present, &all(4000..4001)), ["scope-0", "scope-1", "scope-2"]);
        assert_eq!(present.keys().collect::<Vec<_>>(), ["scope-2"]);
        assert_eq!(apply(&mut present, &all(0..2000)), ["scope-2", "scope-0"]);
        // Somebody else's key, and a pattern that stands twice.
        present.insert("theirs".into(), all(0..10).into_iter().collect());
        assert_eq!(apply(&mut present, &all(0..2000)), ["theirs"]);
        let tiny: BTreeSet<_> = (0..5000).map(|n| Pattern::parse(&format!("pkg:a/{n:x}")).unwrap()).collect();
        present.clear();
        assert_eq!(apply(&mut present, &tiny).len(), 2, "no event has more than a reader takes");
    }

    #[test]
    fn what_is_refused() {
        let many =
            |text: &str, n: usize| serde_json::json!({"version": 1, "packages": vec![text; n]}).to_string();
        let starred: Vec<String> = (0..1025).map(|n| format!("pkg:pypi/{n}-*")).collect();
        let starred = serde_json::json!({"version": 1, "packages": starred}).to_string();
        let rows = [
            (many("pkg:a/b", 4097), "more than 4096 patterns"),
            (many("pkg:pypi/aaaaaaaaaaaaaaaaaa", 4000), "65536 are allowed"),
            (starred, "more than 1024 patterns with stars"),
            (r#"{"version":1,"packages":["six"]}"#.into(), "begins with pkg:"),
            (r#"{"version":1,"packages":"pkg:pypi/six"}"#.into(), "not as it should be"),
            (r#"{"version":1,"packages":[],"packages":[]}"#.into(), "duplicate field"),
            (r#"{"version":1}"#.into(), "missing field"),
            (r#"{"version":2}"#.into(), "version Some(2)"),
            ("{}".into(), "withdrawn"),
        ];
        let mut scope = Scope::default();
        for (json, want) in rows {
            let said = scope.add(json.as_bytes()).expect_err(want).to_string();
            assert!(said.contains(want), "{said:?} does not say {want:?}");
        }
        assert!(scope.is_empty());
    }
}
