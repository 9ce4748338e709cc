//! Logging in and out, by plain requests: the SDK gets a session that is on disk already, so that a kill in between
//! leaves no keys that nobody can use.

use std::time::Duration;

use matrix_sdk::reqwest::redirect::Policy;
use matrix_sdk::reqwest::{self, Method, tls};
use serde_json::{Value, json};
use url::{Host, Url};

use super::client::{Login, Proof};
use super::failure::{legible, plain};
use super::limits::{ANSWER_BYTES, ASKED_PAUSE, LOGOUT_TIME};
use super::session::Session;
use super::{Options, RoomError, UserId};
use crate::base::Secret;

/// The HTTP client of everything that is asked of the homeserver.
pub(super) fn http(options: &Options) -> Result<reqwest::Client, RoomError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("dpm/", env!("CARGO_PKG_VERSION")))
        .min_tls_version(tls::Version::TLS_1_2)
        .connect_timeout(options.patience.request)
        .timeout(options.patience.request)
        // The token goes to the homeserver that was named and to nobody it names.
        .redirect(Policy::none())
        // Also turns off what the environment says.
        .no_proxy();
    let builder = match &options.proxy {
        Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.as_str()).map_err(|e| unusable(&e))?),
        None => builder,
    };
    builder.build().map_err(|e| unusable(&e))
}

fn unusable(error: &reqwest::Error) -> RoomError {
    RoomError::Refused(plain(error))
}

/// Checks the address of a homeserver's client API.
pub(super) fn homeserver(text: &str) -> Result<Url, RoomError> {
    let malformed = || RoomError::Malformed { what: "homeserver address (https://…)", text: text.into() };
    let url: Url = text.parse().map_err(|_| malformed())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    match matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        true => Ok(url),
        false => Err(malformed()),
    }
}

/// Logs in: by password as a new device, or by a token that is one.
pub(super) async fn log_in(http: &reqwest::Client, login: &Login) -> Result<Session, RoomError> {
    let homeserver = homeserver(&login.homeserver)?;
    if is_overheard(&homeserver) {
        log::warn!(
            "rooms: {homeserver} has no TLS: whoever is in between reads the secret of {}",
            login.user
        );
    }
    let (answer, token) = match &login.proof {
        Proof::Password(password) => {
            let body = json!({
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": login.user},
                "password": password.reveal(),
                "initial_device_display_name": "dpm",
            });
            let answer = ask(http, Method::POST, &homeserver, "login", None, Some(body)).await?;
            let token = answer["access_token"].as_str().ok_or_else(senseless)?.to_owned();
            (answer, Secret::new(token))
        }
        Proof::Token(token) => {
            (ask(http, Method::GET, &homeserver, "account/whoami", Some(token), None).await?, token.clone())
        }
    };
    let user = UserId::parse(answer["user_id"].as_str().ok_or_else(senseless)?)?;
    let local = user.as_str()[1..].split(':').next().unwrap_or_default();
    if login.user != user.as_str() && login.user != local {
        return Err(RoomError::Refused(format!("this token is {user}'s, not {}'s", login.user)));
    }
    let device = answer["device_id"].as_str().ok_or_else(|| {
        RoomError::Refused("this token has no device; one that a login gave is needed".into())
    })?;
    Ok(Session { homeserver, user, device: device.to_owned(), token })
}

/// Tells the homeserver that the token is no longer used.
pub(super) async fn log_out(http: &reqwest::Client, session: &Session) -> Result<(), RoomError> {
    let asked = ask(http, Method::POST, &session.homeserver, "logout", Some(&session.token), Some(json!({})));
    match tokio::time::timeout(LOGOUT_TIME, asked).await {
        Ok(Ok(_) | Err(RoomError::LoggedOut(_))) => Ok(()),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(RoomError::Later { why: "no answer in time".into(), after: None }),
    }
}

/// Whether what is sent there can be read on its way.
fn is_overheard(homeserver: &Url) -> bool {
    let here = match homeserver.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    homeserver.scheme() == "http" && !here
}

fn senseless() -> RoomError {
    RoomError::Later { why: "its answer makes no sense".into(), after: None }
}

async fn ask(
    http: &reqwest::Client,
    method: Method,
    homeserver: &Url,
    what: &str,
    token: Option<&Secret>,
    body: Option<Value>,
) -> Result<Value, RoomError> {
    let failed = |e: reqwest::Error| RoomError::Later { why: plain(&e), after: None };
    let url = format!("{}/_matrix/client/v3/{what}", homeserver.as_str().trim_end_matches('/'));
    let mut request = http.request(method, url);
    if let Some(token) = token {
        request = request.bearer_auth(token.reveal());
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_BYTES {
            return Err(senseless());
        }
    }
    let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
    if status.is_success() {
        return answer.filter(Value::is_object).ok_or_else(senseless);
    }
    let said = |name: &str| answer.as_ref().and_then(|a| a[name].as_str()).map(legible);
    let why = format!("{status}{}", said("error").map(|e| format!(": {e}")).unwrap_or_default());
    Err(match said("errcode").as_deref() {
        Some("M_UNKNOWN_TOKEN") => RoomError::LoggedOut(why),
        Some("M_LIMIT_EXCEEDED") => {
            let after = answer.as_ref().and_then(|a| a["retry_after_ms"].as_u64());
            RoomError::Later { why, after: after.map(|ms| Duration::from_millis(ms).min(ASKED_PAUSE)) }
        }
        Some(_) if status.is_client_error() && status.as_u16() != 429 => RoomError::Refused(why),
        _ => RoomError::Later { why, after: None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_homeservers() {
        for (text, good) in [
            ("https://matrix.example.org", true),
            ("http://127.0.0.1:8008/", true),
            ("https://example.org/behind/a/path", true),
            ("matrix.example.org", false),
            ("ftp://example.org", false),
            ("https://user:pass@example.org", false),
            ("https://example.org/?a=b", false),
        ] {
            assert_eq!(homeserver(text).is_ok(), good, "{text}");
        }
        for (text, overheard) in [
            ("https://matrix.example.org", false),
            ("http://matrix.example.org", true),
            ("http://192.0.2.1:8008", true),
            ("http://127.0.0.1:8008", false),
            ("http://[::1]:8008", false),
            ("http://localhost", false),
        ] {
            assert_eq!(is_overheard(&homeserver(text).unwrap()), overheard, "{text}");
        }
    }
}
