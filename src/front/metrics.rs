//! What the door counts, in Prometheus' text format, and the line it logs for every request.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use crate::rt::Lines;

use super::Labelled;

/// How an answer came about: the `X-Cache` header and a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// From what is stored and fresh.
    Hit,
    /// The upstream was asked.
    Miss,
    /// From a node near by.
    Peer,
    /// Past its time, and said so.
    Stale,
    /// The upstream fails, and members of a room said so.
    Room,
    /// Through, without being stored.
    Bypass,
    /// Neither: our own pages, and errors.
    None,
}

impl Cache {
    const ALL: [Self; 7] =
        [Self::Hit, Self::Miss, Self::Peer, Self::Stale, Self::Room, Self::Bypass, Self::None];

    /// As in `X-Cache`.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Peer => "PEER",
            Self::Stale => "STALE",
            Self::Room => "ROOM",
            Self::Bypass => "BYPASS",
            Self::None => "NONE",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Peer => "peer",
            Self::Stale => "stale",
            Self::Room => "room",
            Self::Bypass => "bypass",
            Self::None => "none",
        }
    }
}

/// Status codes that are counted by themselves; others count as the hundred below them.
const CODES: [u16; 20] =
    [100, 200, 206, 300, 301, 304, 400, 403, 404, 405, 406, 409, 416, 421, 431, 500, 502, 503, 504, 508];

/// The door's counters.
#[derive(Default)]
pub struct Metrics {
    requests: [[AtomicU64; Cache::ALL.len()]; CODES.len()],
    sent_bytes: [AtomicU64; Cache::ALL.len()],
    cut: AtomicU64,
    open: AtomicU64,
    lines: Option<Lines>,
}

impl Metrics {
    /// Counters that log every request to `lines`, if there are any.
    pub fn new(lines: Option<Lines>) -> Self {
        Self { lines, ..Self::default() }
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(4096);
        family(&mut out, "dpm_requests_total", "counter", "Requests answered.");
        for (code, row) in CODES.iter().zip(&self.requests) {
            for (cache, count) in Cache::ALL.iter().zip(row) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let cache = cache.label();
                    let _ =
                        writeln!(out, "dpm_requests_total{{status=\"{code}\",cache=\"{cache}\"}} {count}");
                }
            }
        }
        family(&mut out, "dpm_sent_bytes_total", "counter", "Bytes of bodies sent to clients.");
        for (cache, bytes) in Cache::ALL.iter().zip(&self.sent_bytes) {
            let _ =
                writeln!(out, "dpm_sent_bytes_total{{cache=\"{}\"}} {}", cache.label(), bytes.load(Relaxed));
        }
        value(
            &mut out,
            "dpm_cut_answers_total",
            "counter",
            "Answers cut off before their end.",
            self.cut.load(Relaxed),
        );
        value(&mut out, "dpm_open_answers", "gauge", "Answers being sent now.", self.open.load(Relaxed));
        let dropped = self.lines.as_ref().map_or(0, Lines::dropped);
        value(
            &mut out,
            "dpm_log_lines_dropped_total",
            "counter",
            "Log lines dropped because nobody took them.",
            dropped,
        );
        out
    }

    /// Answers by `X-Cache`, bodies' bytes included: for `dpm status`.
    pub fn by_cache(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        Cache::ALL.iter().enumerate().map(|(n, cache)| {
            let answers = self.requests.iter().map(|row| row[n].load(Relaxed)).sum();
            (cache.label(), answers, self.sent_bytes[n].load(Relaxed))
        })
    }
}

/// Starts a metric of the text format.
pub(super) fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric with one value.
pub(super) fn value(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    family(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

/// A metric with a value for each of several. Their names are ours or were checked; quotes are left out all the same.
pub(super) fn labelled(out: &mut String, gauge: &Labelled) {
    let Labelled { name, help, label, values } = gauge;
    if values.is_empty() {
        return;
    }
    family(out, name, "gauge", help);
    for (of, value) in values {
        let of = of.replace(['"', '\\', '\n'], "");
        let _ = writeln!(out, "{name}{{{label}=\"{of}\"}} {value}");
    }
}

/// One request from its arrival to the end of its answer's body.
pub(super) struct Note {
    metrics: Arc<Metrics>,
    begun: Instant,
    client: IpAddr,
    method: http::Method,
    path: String,
    pub(super) status: u16,
    pub(super) cache: Cache,
    pub(super) bytes: u64,
    /// Bytes that the answer promised, if it did.
    pub(super) promised: Option<u64>,
    /// Why the body ended early, if we ended it.
    pub(super) cut: Option<String>,
}

impl Note {
    pub(super) fn new(metrics: &Arc<Metrics>, client: IpAddr, request: &http::request::Parts) -> Self {
        metrics.open.fetch_add(1, Relaxed);
        // The query is not logged: it could hold a secret.
        let path = match metrics.lines.is_some() {
            true => request.uri.path().to_owned(),
            false => String::new(),
        };
        Self {
            metrics: metrics.clone(),
            begun: Instant::now(),
            client,
            method: request.method.clone(),
            path,
            status: 0,
            cache: Cache::None,
            bytes: 0,
            promised: None,
            cut: None,
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let ms = self.begun.elapsed().as_micros() as f64 / 1000.0;
        let path = serde_json::to_string(&self.path).unwrap_or_default();
        let (client, method, status, cache) = (self.client, &self.method, self.status, self.cache.header());
        let _ = write!(
            out,
            r#"{{"time":"{now}","client":"{client}","method":"{method}","path":{path},"status":{status},"cache":"{cache}","bytes":{},"ms":{ms:.3}"#,
            self.bytes
        );
        if let Some(why) = self.ended_early() {
            let _ = write!(out, r#","cut":{}"#, serde_json::to_string(why).unwrap_or_default());
        }
        out.push(b'}');
    }

    fn ended_early(&self) -> Option<&str> {
        let short = self.promised.is_some_and(|p| self.bytes < p) && self.method != http::Method::HEAD;
        self.cut.as_deref().or(short.then_some("the client went away"))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.open.fetch_sub(1, Relaxed);
        let at = |code| CODES.iter().position(|c| *c == code);
        let row = at(self.status).or_else(|| at(self.status / 100 * 100)).unwrap_or(0);
        let column = Cache::ALL.iter().position(|c| *c == self.cache).unwrap_or(0);
        metrics.requests[row][column].fetch_add(1, Relaxed);
        metrics.sent_bytes[column].fetch_add(self.bytes, Relaxed);
        if self.ended_early().is_some() {
            metrics.cut.fetch_add(1, Relaxed);
        }
        if let Some(lines) = &metrics.lines {
            lines.add(|out| self.line(out));
        }
    }
}
