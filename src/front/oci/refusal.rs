//! Errors as registries' clients read them (OCI distribution specification, "Error codes").

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::eco::oci::{ManifestError, WantError};
use crate::fetch::FetchError;
use crate::resolve::images::ImagesError;
use crate::upstream::UpstreamError;

use super::super::body::Out;
use super::super::metrics::Cache;
use super::super::reply::{Reply, upstream};

/// Why a client does not get what it asks for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn nothing() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "nothing is here: there are /v2/NAME/{manifests,blobs,tags,referrers}/…",
        )
    }

    pub(super) fn read_only() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this is a cache: push to the registry itself",
        )
        .with(header::ALLOW, "GET, HEAD".into())
    }

    pub(super) fn disk(e: &std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("the disk failed: {e}"))
    }

    pub(super) fn of_manifest(e: &ManifestError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "MANIFEST_INVALID", e.to_string())
    }

    /// `unknown` is the code of what was asked for.
    pub(super) fn of_images(e: &ImagesError, unknown: &'static str) -> Self {
        let text = e.to_string();
        match e {
            ImagesError::NoRegistry(_) => Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", text),
            ImagesError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, unknown, text),
            ImagesError::Upstream(e) => Self::of_upstream(e),
            ImagesError::Answer { .. } => Self::new(StatusCode::BAD_GATEWAY, "UNKNOWN", text),
            ImagesError::Disputed(_) => Self::new(StatusCode::CONFLICT, unknown, text),
            ImagesError::Offline(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "UNKNOWN", text),
            ImagesError::Store(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", text),
        }
    }

    /// `unknown` is the code of what was asked for.
    pub(super) fn of_fetch(e: &FetchError, unknown: &'static str) -> Self {
        match e {
            FetchError::Upstream(e) => Self::of_upstream(e),
            e => {
                let reply = Reply::from(e);
                let code = if reply.status == StatusCode::NOT_FOUND { unknown } else { "UNKNOWN" };
                Self::new(reply.status, code, e.to_string())
            }
        }
    }

    /// Never a 404: a registry that fails is not one that does not know.
    fn of_upstream(e: &UpstreamError) -> Self {
        let refusal = match e {
            UpstreamError::Denied { origin, status } => Self::new(
                StatusCode::FORBIDDEN,
                "DENIED",
                format!(
                    "{origin} answered {status}: there is no such repository, or it needs credentials ([[oci]] in dpm.toml)"
                ),
            ),
            UpstreamError::Busy { .. } => Self::new(upstream(e), "TOOMANYREQUESTS", e.to_string()),
            e => Self::new(upstream(e), "UNKNOWN", e.to_string()),
        };
        match e.retry_after() {
            Some(after) => refusal.with(header::RETRY_AFTER, after.as_secs().max(1).to_string()),
            None => refusal,
        }
    }

    pub(super) fn reply(self) -> Reply {
        let Self { status, code, message, headers } = self;
        let error = serde_json::json!({"errors": [{"code": code, "message": format!("dpm: {message}")}]});
        let mut reply = Reply::new(status, Cache::None, Out::full(format!("{error}\n")));
        reply.set(header::CONTENT_TYPE, "application/json");
        reply.set(super::API_VERSION, "registry/2.0");
        reply.set(header::CACHE_CONTROL, "no-store");
        if matches!(status.as_u16(), 502..=504) {
            reply.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        for (name, value) in headers {
            reply.put(name, &value);
        }
        reply
    }
}

impl From<WantError> for Refusal {
    fn from(e: WantError) -> Self {
        let code = match e {
            WantError::Name | WantError::Registry => "NAME_INVALID",
            WantError::Tag => "MANIFEST_INVALID",
            WantError::Digest(_) => "DIGEST_INVALID",
        };
        Self::new(StatusCode::BAD_REQUEST, code, e.to_string())
    }
}

impl From<ImagesError> for Refusal {
    fn from(e: ImagesError) -> Self {
        Self::of_images(&e, "NAME_UNKNOWN")
    }
}
