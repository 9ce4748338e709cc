//! Conditions and ranges of a request (RFC 9110 §13, §14). Pure.

/// Which bytes a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranged {
    /// All of them: no range, or one that is to be ignored.
    Whole,
    /// `length` bytes from `first`; never empty.
    Part {
        /// The first byte.
        first: u64,
        /// How many.
        length: u64,
    },
    /// None: 416.
    Unsatisfiable,
}

/// Reads a `Range` header against a body of `size` bytes.
///
/// Several ranges, other units and broken headers are ignored, as RFC 9110 §14.2 allows.
pub fn ranged(header: &str, size: u64) -> Ranged {
    let Some(spec) = header.trim().strip_prefix("bytes=") else { return Ranged::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Ranged::Whole };
    let number = |text: &str| match text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        true => None,
        // More digits than a file can have bytes.
        false => Some(text.parse().unwrap_or(u64::MAX)),
    };
    let (first, last) = (first.trim(), last.trim());
    let (first, end) = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => (first, size),
        (Some(first), Some(last)) if last >= first => (first, last.saturating_add(1).min(size)),
        (None, Some(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Ranged::Whole,
    };
    match first < end {
        true => Ranged::Part { first, length: end - first },
        false => Ranged::Unsatisfiable,
    }
}

/// Whether one of the entity tags of an `If-None-Match` is `etag` (weak comparison, RFC 9110 §13.1.2).
pub(super) fn matches(header: &str, etag: &str) -> bool {
    header.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// Whether an `If-Range` lets a range be honoured: only our own strong tag does (RFC 9110 §13.1.5).
pub(super) fn if_range_holds(header: Option<&str>, etag: Option<&str>) -> bool {
    header.is_none_or(|wanted| etag == Some(wanted.trim()))
}

/// Whether gzip is among what a client accepts (RFC 9110 §12.5.3).
pub(super) fn accepts_gzip(header: &str) -> bool {
    let mut wildcard = false;
    for coding in header.split(',') {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused =
            parts.filter_map(|p| p.strip_prefix("q=")).any(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        match name {
            "gzip" | "x-gzip" => return !refused,
            "*" => wildcard = !refused,
            _ => {}
        }
    }
    wildcard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |first, length| Ranged::Part { first, length };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-", part(0, 100)),
            ("bytes=10-19", part(10, 10)),
            ("bytes=10-1000", part(10, 90)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=99-", part(99, 1)),
            ("bytes=100-", Ranged::Unsatisfiable),
            ("bytes=-0", Ranged::Unsatisfiable),
            ("bytes=99999999999999999999999-", Ranged::Unsatisfiable),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=5-4", Ranged::Whole),
            ("bytes=0-1,5-6", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=a-b", Ranged::Whole),
            ("items=0-1", Ranged::Whole),
            ("", Ranged::Whole),
        ];
        for (header, want) in cases {
            assert_eq!(ranged(header, 100), want, "{header}");
        }
        assert_eq!(ranged("bytes=0-", 0), Ranged::Unsatisfiable);
    }

    #[test]
    fn tags() {
        let cases = [
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ];
        for (header, want) in cases {
            assert_eq!(matches(header, "\"a\""), want, "{header}");
        }
        assert!(if_range_holds(None, None));
        assert!(if_range_holds(Some("\"a\""), Some("\"a\"")));
        assert!(!if_range_holds(Some("W/\"a\""), Some("\"a\"")));
        assert!(!if_range_holds(Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some("\"a\"")));
    }

    #[test]
    fn codings() {
        let cases = [
            ("gzip, deflate", true),
            ("br;q=1.0, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("", false),
        ];
        for (header, want) in cases {
            assert_eq!(accepts_gzip(header), want, "{header}");
        }
    }
}
