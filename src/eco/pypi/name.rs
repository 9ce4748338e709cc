//! Names of projects, and patterns over them.

use std::fmt;

/// A project's name, normalised (PEP 503): `[-_.]+` became `-` and letters are lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectName(String);

impl ProjectName {
    /// Normalises a name as people write it; an error when it is no name at all (PEP 508).
    pub fn normalise(raw: &str) -> Result<Self, NameError> {
        if raw.is_empty() {
            return Err(NameError::Empty);
        }
        if raw.len() > NAME_BYTES {
            return Err(NameError::TooLong(raw.len()));
        }
        let bytes = raw.as_bytes();
        if !bytes.iter().all(|&b| b.is_ascii_alphanumeric() || is_separator(b)) {
            return Err(NameError::Character);
        }
        if is_separator(bytes[0]) || is_separator(bytes[bytes.len() - 1]) {
            return Err(NameError::Edge);
        }
        Ok(Self(fold(raw)))
    }

    /// Whether `raw` is a valid name that normalising would leave alone.
    pub fn is_normalised(raw: &str) -> bool {
        Self::normalise(raw).is_ok_and(|name| name.0 == raw)
    }

    /// The normalised name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Names with `*` for any characters, such as `corp-*`: which projects belong to whom.
///
/// Compared with normalised names, so `Corp_*` and `corp-*` are one pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// Takes letters, digits, `.`, `_`, `-` and `*`.
    pub fn parse(raw: &str) -> Result<Self, PatternError> {
        if raw.is_empty() || raw.len() > NAME_BYTES {
            return Err(PatternError::Length);
        }
        if !raw.bytes().all(|b| b.is_ascii_alphanumeric() || is_separator(b) || b == b'*') {
            return Err(PatternError::Character);
        }
        Ok(Self(fold(raw)))
    }

    /// Whether the whole name fits the whole pattern.
    ///
    /// A prefix pattern such as `corp-*` does not match `corp` itself.
    pub fn matches(&self, name: &ProjectName) -> bool {
        let mut rest = name.as_str();
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(after) = rest.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return after.is_empty() };
        rest = after;
        for piece in pieces {
            // The leftmost place is always good enough: what follows only needs room.
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// PEP 503 on any text: also for `name-version` of a wheel's `dist-info`.
pub(super) fn fold(raw: &str) -> String {
    let mut folded = String::with_capacity(raw.len());
    let mut in_run = false;
    for c in raw.chars() {
        let separator = c.is_ascii() && is_separator(c as u8);
        match separator {
            true if !in_run => folded.push('-'),
            true => {}
            false => folded.push(c.to_ascii_lowercase()),
        }
        in_run = separator;
    }
    folded
}

fn is_separator(b: u8) -> bool {
    matches!(b, b'-' | b'_' | b'.')
}

/// Longest project name: it becomes a path segment, and 255 is what file systems and large indexes agree on.
pub(super) const NAME_BYTES: usize = 255;

/// Why a text is no project name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a project name is not empty")]
    Empty,
    /// Longer than 255 bytes.
    #[error("a project name has at most {NAME_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// Something else than ASCII letters, digits, `.`, `_` and `-`.
    #[error("a project name consists of ASCII letters, digits, '.', '_' and '-'")]
    Character,
    /// Starts or ends with a separator.
    #[error("a project name starts and ends with a letter or digit")]
    Edge,
}

/// Why a text is no name pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty or too long.
    #[error("a name pattern has 1 to {NAME_BYTES} bytes")]
    Length,
    /// Only names and `*` make a pattern.
    #[error("a name pattern consists of ASCII letters, digits, '.', '_', '-' and '*'")]
    Character,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, want: Result<&str, NameError>) {
        assert_eq!(
            ProjectName::normalise(raw).as_ref().map(ProjectName::as_str),
            want.as_ref().copied(),
            "{raw:?}"
        );
    }

    #[test]
    fn names() {
        check("idna", Ok("idna"));
        check("Friendly-Bard", Ok("friendly-bard"));
        check("FRIENDLY.--._BARD", Ok("friendly-bard"));
        check("a", Ok("a"));
        check("3to2", Ok("3to2"));
        check("", Err(NameError::Empty));
        check("-a", Err(NameError::Edge));
        check("a_", Err(NameError::Edge));
        check(".", Err(NameError::Edge));
        check("..", Err(NameError::Edge));
        check("a/b", Err(NameError::Character));
        check("a b", Err(NameError::Character));
        check("a\0", Err(NameError::Character));
        check("pаypal", Err(NameError::Character)); // a Cyrillic letter
        check("ſix", Err(NameError::Character)); // folds to ASCII in Unicode case mapping
        check(&"x".repeat(256), Err(NameError::TooLong(256)));
        assert!(ProjectName::is_normalised("a-b"));
        assert!(!ProjectName::is_normalised("a--b"));
        assert!(!ProjectName::is_normalised("A"));
        assert!(!ProjectName::is_normalised("a/"));
    }

    #[test]
    fn patterns() {
        let rows = [
            ("corp-*", "corp-db", true),
            ("Corp_*", "corp-db", true),
            ("corp-*", "corp", false),
            ("corp-*", "my-corp-db", false),
            ("corp", "corp", true),
            ("corp", "corp-db", false),
            ("*", "anything", true),
            ("**", "anything", true),
            ("*-internal", "db-internal", true),
            ("*-internal", "db-internal-2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("aa*aa", "aaa", false),
            ("aa*aa", "aaaa", true),
            ("*a*", "bbb", false),
        ];
        for (pattern, name, want) in rows {
            let name = ProjectName::normalise(name).unwrap();
            assert_eq!(NamePattern::parse(pattern).unwrap().matches(&name), want, "{pattern} {name}");
        }
        assert_eq!(NamePattern::parse(""), Err(PatternError::Length));
        assert_eq!(NamePattern::parse("corp-[ab]"), Err(PatternError::Character));
    }
}
