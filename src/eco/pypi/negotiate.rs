//! Which form of a page a client gets (PEP 691).

use super::super::path::percent_decode;

/// A form of the simple API's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `application/vnd.pypi.simple.v1+json`.
    Json,
    /// `application/vnd.pypi.simple.v1+html`.
    Html,
    /// `text/html`: the same page under its old type.
    LegacyHtml,
}

impl Form {
    /// The value of `Content-Type`, always a concrete version.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/vnd.pypi.simple.v1+json",
            Self::Html => "application/vnd.pypi.simple.v1+html",
            Self::LegacyHtml => "text/html; charset=utf-8",
        }
    }

    fn of_media_type(media_type: &str) -> Option<Self> {
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        if is("application/vnd.pypi.simple.v1+json") || is("application/vnd.pypi.simple.latest+json") {
            Some(Self::Json)
        } else if is("application/vnd.pypi.simple.v1+html") || is("application/vnd.pypi.simple.latest+html") {
            Some(Self::Html)
        } else if is("text/html") {
            Some(Self::LegacyHtml)
        } else {
            None
        }
    }
}

/// The form that `Accept` and the query ask for; `None` is for 406.
///
/// `?format=<media type>` decides alone when it is there. A client that does not say, or that takes anything, gets
/// `text/html`, for it may be older than the other types. Answers depend on `Accept`: send `Vary: Accept`.
pub fn negotiate(accept: Option<&str>, query: Option<&str>) -> Option<Form> {
    if let Some(format) = query.and_then(format_of) {
        // Not form-decoded: `+` in `v1+json` is a plus, as PEP 691 itself writes it.
        return Form::of_media_type(&percent_decode(format).ok()?);
    }
    let accept = accept.unwrap_or_default().trim();
    if accept.is_empty() {
        return Some(Form::LegacyHtml);
    }
    let mut best: [Option<Match>; 3] = [None; 3];
    for range in accept.split(',') {
        let mut parts = range.split(';');
        let media_range = parts.next().unwrap_or_default().trim();
        let Some(quality) = quality(parts) else { continue };
        for (form, best) in [Form::Json, Form::Html, Form::LegacyHtml].into_iter().zip(&mut best) {
            let Some(exactness) = exactness(media_range, form) else { continue };
            let found = Match { quality, exactness, form };
            // The most exact range speaks for a form; of two alike (an alias), the kinder.
            if best.is_none_or(|b| (b.exactness, b.quality) < (exactness, quality)) {
                *best = Some(found);
            }
        }
    }
    best.into_iter().flatten().filter(|m| m.quality > 0).max_by_key(Match::rank).map(|m| m.form)
}

#[derive(Clone, Copy)]
struct Match {
    /// Thousandths.
    quality: u16,
    exactness: u8,
    form: Form,
}

impl Match {
    /// Quality first, then what the client named over what it merely allows, then what we like.
    fn rank(&self) -> (u16, u8, u8) {
        let liked = match (self.exactness, self.form) {
            (ANYTHING, Form::LegacyHtml) => 3,
            (_, Form::Json) => 2,
            (_, Form::Html) => 1,
            (_, Form::LegacyHtml) => 0,
        };
        (self.quality, self.exactness, liked)
    }
}

fn exactness(media_range: &str, form: Form) -> Option<u8> {
    if Form::of_media_type(media_range) == Some(form) {
        return Some(EXACT);
    }
    let family = if form == Form::LegacyHtml { "text/*" } else { "application/*" };
    match media_range {
        "*/*" | "*" => Some(ANYTHING),
        range if range.eq_ignore_ascii_case(family) => Some(FAMILY),
        _ => None,
    }
}

/// Thousandths (RFC 9110, section 12.4.2); `None` when it is not written as a weight.
fn quality<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    for parameter in parameters {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("q") {
            continue;
        }
        let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let thousandths = fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(3)
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        return match whole {
            "0" => Some(thousandths),
            "1" if thousandths == 0 => Some(1000),
            _ => None,
        };
    }
    Some(1000)
}

fn format_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("format="))
}

const EXACT: u8 = 2;
const FAMILY: u8 = 1;
const ANYTHING: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, want: Option<Form>) {
        assert_eq!(negotiate(Some(accept), None), want, "{accept}");
    }

    #[test]
    fn real_clients() {
        check(
            "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
            Some(Form::Json),
        );
        check(
            "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
            Some(Form::Json),
        );
        check("text/html", Some(Form::LegacyHtml));
        check("*/*", Some(Form::LegacyHtml));
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Form::LegacyHtml));
        check("", Some(Form::LegacyHtml));
        assert_eq!(negotiate(None, None), Some(Form::LegacyHtml));
    }

    #[test]
    fn weights_and_wildcards() {
        check("application/vnd.pypi.simple.v1+html", Some(Form::Html));
        check("application/vnd.pypi.simple.latest+json", Some(Form::Json));
        check("application/vnd.pypi.simple.latest+html", Some(Form::Html));
        check("Application/VND.pypi.simple.v1+JSON", Some(Form::Json));
        check("text/*", Some(Form::LegacyHtml));
        check("application/*", Some(Form::Json));
        check("application/*, application/vnd.pypi.simple.v1+json;q=0", Some(Form::Html));
        check("*/*, text/html;q=0", Some(Form::Json));
        check("application/vnd.pypi.simple.v1+json, */*", Some(Form::Json));
        check("application/vnd.pypi.simple.v1+json;q=0.5, text/html;q=0.501", Some(Form::LegacyHtml));
        check("application/vnd.pypi.simple.v1+json, text/html", Some(Form::Json));
        check("text/html;charset=utf-8;q=0.3, application/vnd.pypi.simple.v1+html;Q=0.4", Some(Form::Html));
        check("application/json", None);
        check("application/json, */*;q=0.1", Some(Form::LegacyHtml));
        check("application/vnd.pypi.simple.v2+json", None);
        check("text/html;q=0", None);
        check("text/html;q=0.000", None);
        check("text/html;q=2", None);
        check("text/html;q=-1, text/html;q=0.x", None);
        check("text/html;q=,,;;q", None);
        check(",", None);
    }

    #[test]
    fn format_parameter() {
        let rows = [
            ("format=application/vnd.pypi.simple.v1+json", Some(Form::Json)),
            ("format=application%2Fvnd.pypi.simple.v1%2Bjson", Some(Form::Json)),
            ("a=b&format=application/vnd.pypi.simple.latest%2bhtml", Some(Form::Html)),
            ("format=text/html", Some(Form::LegacyHtml)),
            ("format=json", None),
            ("format=%ff", None),
            ("format=%2", None),
            ("formats=x", Some(Form::LegacyHtml)),
            ("", Some(Form::LegacyHtml)),
        ];
        for (query, want) in rows {
            assert_eq!(negotiate(Some("text/html"), Some(query)), want, "{query}");
        }
    }

    #[test]
    fn answers_are_concrete() {
        for form in [Form::Json, Form::Html, Form::LegacyHtml] {
            assert!(!form.content_type().contains("latest"));
        }
    }
}
