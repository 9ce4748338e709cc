//! The nodes that a request came through (RFC 8586, `CDN-Loop`): so that nodes in front of each other do not ask in a
//! circle.

/// dpm nodes that a request may come through: an office's box behind its company's, behind a mirror's, and one to spare.
pub const HOPS: usize = 4;

/// Longest list that is read; longer ones are nobody's way.
const BYTES: usize = 1024;

/// The nodes that a request came through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// As it came: what others wrote is handed on.
    text: String,
    /// Of dpm's nodes.
    ids: Vec<String>,
    endless: bool,
}

impl Trail {
    /// Reads the lines of a request's `CDN-Loop`; `None` where there are none.
    pub fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut text = String::new();
        for line in lines {
            let line = String::from_utf8_lossy(line);
            let separator = if text.is_empty() { "" } else { ", " };
            text.extend([separator, line.trim()]);
            if text.len() > BYTES || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return Some(Self { endless: true, ..Self::default() });
            }
        }
        let ids = text.split(',').filter_map(id).map(str::to_owned).collect();
        (!text.is_empty()).then_some(Self { text, ids, endless: false })
    }

    /// Whether a node was here before.
    pub fn has(&self, id: &str) -> bool {
        self.ids.iter().any(|has| has == id)
    }

    /// Whether it is longer than any that leads somewhere.
    pub fn is_endless(&self) -> bool {
        self.endless || self.ids.len() > HOPS
    }

    /// The header's value with this node behind the others.
    pub fn with(&self, id: &str) -> String {
        let separator = if self.text.is_empty() { "" } else { ", " };
        format!("{}{separator}{NAME}; id={id}", self.text)
    }
}

/// The id of an element that is dpm's: `dpm; id=…`.
fn id(element: &str) -> Option<&str> {
    let mut parts = element.split(';').map(str::trim);
    parts.next().filter(|name| name.eq_ignore_ascii_case(NAME))?;
    Some(parts.find_map(|part| part.strip_prefix("id=")).unwrap_or_default().trim_matches('"'))
}

/// What dpm calls itself there.
const NAME: &str = "dpm";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;

    fn read(lines: &[&str]) -> Option<Trail> {
        Trail::read(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn trails() {
        assert_eq!(read(&[]), None);
        assert_eq!(Trail::default().with("a1"), "dpm; id=a1");
        let trail = read(&["other.example.org; loops=1, dpm; id=a1", "DPM;x;id=\"b2\""]).unwrap();
        assert!(trail.has("a1") && trail.has("b2") && !trail.has("c3") && !trail.has("other.example.org"));
        assert!(!trail.is_endless());
        let next = trail.with("c3");
        assert_eq!(next, "other.example.org; loops=1, dpm; id=a1, DPM;x;id=\"b2\", dpm; id=c3");
        assert!(read(&[&next]).unwrap().has("c3"));
        let long = |hops| read(&[&vec!["dpm; id=x"; hops].join(", ")]).unwrap();
        assert!(!long(HOPS).is_endless() && long(HOPS + 1).is_endless());
        assert!(read(&[&"x".repeat(BYTES + 1)]).unwrap().is_endless());
        assert!(read(&["\u{7}"]).unwrap().is_endless());
    }

    #[test]
    fn mutated_trails_can_be_sent() {
        mutations(&[b"other.example.org; loops=1, dpm; id=\"a1\"", b"dpm"], 5_000, |bytes| {
            if let Some(trail) = Trail::read(std::iter::once(bytes)) {
                assert!(http::HeaderValue::from_str(&trail.with("x")).is_ok());
            }
        });
    }
}
