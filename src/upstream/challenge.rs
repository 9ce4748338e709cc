//! What a registry wants to see: the `WWW-Authenticate` header (RFC 9110 §11.6.1) with Docker's bearer parameters
//! (distribution, "Token Authentication Specification").

use http::header::{self, HeaderMap};
use http_auth::parser::ChallengeParser;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The credentials themselves.
    Basic,
    /// A token from somewhere else.
    Bearer(Bearer),
}

/// Where a token is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

/// The challenge that is to be answered: a token where there is a choice. `None` when there is none that we know.
pub(super) fn of(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut basic = None;
    for value in values.take(MOST) {
        // What follows something malformed is not read.
        for challenge in ChallengeParser::new(value).map_while(Result::ok).take(MOST) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            match (challenge.scheme.to_ascii_lowercase().as_str(), parameter("realm")) {
                ("bearer", Some(realm)) => {
                    return Some(Challenge::Bearer(Bearer { realm, service: parameter("service") }));
                }
                ("basic", _) => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

/// Challenges read: real registries send one.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| {
            let service = service.map(str::to_owned);
            Some(Challenge::Bearer(Bearer { realm: realm.into(), service }))
        };
        let cases: [(&[&str], Option<Challenge>); 9] = [
            (&[], None),
            (&["Basic realm=\"registry\""], Some(Challenge::Basic)),
            (
                &[
                    r#"Bearer realm="https://auth.example.org/token",service="r.example.org",scope="repository:a:pull,push""#,
                ],
                bearer("https://auth.example.org/token", Some("r.example.org")),
            ),
            (&[r#"bearer REALM="https://a.example.org/\"t""#], bearer("https://a.example.org/\"t", None)),
            (&["Basic realm=\"x\"", "Bearer realm=\"y\""], bearer("y", None)),
            (&["Basic realm=\"x\", Bearer realm=\"y\",service=z"], bearer("y", Some("z"))),
            (&["Bearer service=\"nowhere\""], None),
            (&["Negotiate", "Digest realm=\"x\""], None),
            (&["=,=;;\"", "Bearer realm=\"unclosed"], None),
        ];
        for (values, want) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(of(&headers), want, "{values:?}");
        }
    }
}
