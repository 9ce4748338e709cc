//! A plain HTTP client for tests: no retries, no redirects, no decoding.

use std::io::Read;
use std::time::Duration;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
    /// Why the body broke off, if it did.
    pub broken: Option<String>,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[])
}

/// One request with these headers. Fails the test when there is no answer at all.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(120)))
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let response =
        agent.run(builder.body(()).expect("a request")).unwrap_or_else(|e| panic!("{method} {url}: {e}"));
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let broken = body.as_reader().read_to_end(&mut bytes).err().map(|e| e.to_string());
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes, broken }
}
