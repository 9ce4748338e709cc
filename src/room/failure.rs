//! What an error of the SDK means for us.

use std::error::Error as _;
use std::time::Duration;

use matrix_sdk::ruma::api::error::{Error as ApiError, ErrorBody, ErrorKind, RetryAfter};
use matrix_sdk::{Error, HttpError, reqwest};

use super::RoomError;
use super::limits::ASKED_PAUSE;

/// What to do about an error.
#[derive(Debug)]
pub(super) enum Failure {
    /// Log in again.
    LoggedOut(String),
    /// Ask again, after this pause where the homeserver wants one.
    Again { why: String, after: Option<Duration> },
    /// Give up: the homeserver understood, and says no.
    Refused(String),
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Http(error) => Self::of_http(error),
            Error::WrongRoomState(_) | Error::Identifier(_) | Error::SerdeJson(_) => {
                Self::Refused(error.to_string())
            }
            // The store's trouble, mostly: a full disk comes to an end.
            _ => Self::Again { why: error.to_string(), after: None },
        }
    }

    pub(super) fn of_http(error: &HttpError) -> Self {
        match (error.as_client_api_error(), error) {
            (Some(said), _) => Self::of_answer(said),
            (None, HttpError::Reqwest(error)) => Self::Again { why: plain(error), after: None },
            // Bytes that make no sense, which may be private: they are not repeated.
            (None, HttpError::Api(_)) => Self::Again { why: "its answer makes no sense".into(), after: None },
            (None, error) => Self::Again { why: error.to_string(), after: None },
        }
    }

    fn of_answer(said: &ApiError) -> Self {
        let status = said.status_code;
        let (code, message) = match &said.body {
            ErrorBody::Standard(body) => (Some(&body.kind), body.message.as_str()),
            _ => (None, ""),
        };
        let why = match code {
            Some(_) => format!("{status}: {}", legible(message)),
            None => format!("it answers {status}"),
        };
        match code {
            Some(ErrorKind::UnknownToken(_) | ErrorKind::UserDeactivated) => Self::LoggedOut(why),
            Some(ErrorKind::LimitExceeded(limit)) => {
                let after = limit.retry_after.as_ref().and_then(|after| match after {
                    RetryAfter::Delay(delay) => Some((*delay).min(ASKED_PAUSE)),
                    RetryAfter::DateTime(_) => None,
                });
                Self::Again { why, after }
            }
            Some(_) if status.is_client_error() && status.as_u16() != 429 => Self::Refused(why),
            // Something else answers in the homeserver's place, or it is in trouble.
            _ => Self::Again { why, after: None },
        }
    }
}

impl From<Failure> for RoomError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::LoggedOut(why) => Self::LoggedOut(why),
            Failure::Again { why, after } => Self::Later { why, after },
            Failure::Refused(why) => Self::Refused(why),
        }
    }
}

/// A transport's error in a few words, without the address, which is long.
pub(super) fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let what = if error.is_connect() { "cannot connect" } else { "the connection failed" };
    match error.source() {
        Some(_) => format!("{what}: {cause}"),
        None => what.into(),
    }
}

/// A stranger's text in one short line.
pub(super) fn legible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::api::EndpointError as _;

    use super::*;

    /// What an answer with this head and body means.
    fn of(status: u16, header: Option<&str>, body: &str) -> Failure {
        let mut answer = http::Response::builder().status(status);
        if let Some(value) = header {
            answer = answer.header("retry-after", value);
        }
        Failure::of_answer(&ApiError::from_http_response(answer.body(body.to_owned()).unwrap()))
    }

    /// However long a homeserver asks to be left alone, it is asked again some day.
    #[test]
    fn what_a_homeserver_that_has_enough_asks_for() {
        let limit = |more: &str| format!(r#"{{"errcode":"M_LIMIT_EXCEEDED","error":"enough"{more}}}"#);
        let (second, most) = (Some(Duration::from_secs(1)), Some(ASKED_PAUSE));
        for (status, header, body, want) in [
            (429, None, limit(""), None),
            (429, None, limit(r#","retry_after_ms":1000"#), second),
            (429, None, limit(r#","retry_after_ms":3600001"#), most),
            (429, None, limit(r#","retry_after_ms":9007199254740991"#), most),
            // What is no time is none.
            (429, None, limit(r#","retry_after_ms":18446744073709551616"#), None),
            (429, None, limit(r#","retry_after_ms":-1000"#), None),
            (429, None, limit(r#","retry_after_ms":"soon""#), None),
            (429, Some("1"), limit(""), second),
            (429, Some("1"), limit(r#","retry_after_ms":9000"#), second),
            (429, Some("18446744073709551615"), limit(""), most),
            (429, Some("Fri, 31 Dec 9999 23:59:59 GMT"), limit(""), None),
            (429, Some("soon"), limit(""), None),
            // A proxy's words, and another code.
            (429, Some("1"), "<html>slow down</html>".to_owned(), None),
            (429, None, r#"{"errcode":"M_UNKNOWN","error":"enough"}"#.to_owned(), None),
            (503, Some("1"), "{}".to_owned(), None),
        ] {
            match of(status, header, &body) {
                Failure::Again { after, .. } => assert_eq!(after, want, "{header:?} {body}"),
                other => panic!("{header:?} {body}: {other:?}"),
            }
        }
        let refused = of(403, None, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#);
        assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
    }
}
