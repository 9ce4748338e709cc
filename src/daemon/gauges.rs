//! What the door's `/readyz` and `/metrics` show.

use std::sync::atomic::Ordering::Relaxed;

use crate::front::{Gauges, Labelled};
use crate::upstream::RateLimit;

use super::Admin;

impl Admin {
    /// What the door's `/readyz` and `/metrics` show. Blocks for a moment.
    pub fn gauges(&self) -> Gauges {
        let rooms = self.rooms();
        let mut gauges = Gauges::default();
        match rooms.store.space() {
            Ok(space) => {
                if space.free_bytes < space.margin_bytes {
                    let (free, margin) = (space.free_bytes, space.margin_bytes);
                    let text = format!(
                        "the disk has {free} bytes free, under the margin of {margin}: nothing is stored"
                    );
                    gauges.not_ready.push(text);
                }
                gauges.metrics.extend([
                    ("dpm_store_artifacts", "gauge", "Artifacts stored.", space.artifacts),
                    ("dpm_store_artifact_bytes", "gauge", "Bytes of artifacts stored.", space.artifact_bytes),
                    ("dpm_store_index_bytes", "gauge", "Bytes of the store's index.", space.index_bytes),
                    ("dpm_store_budget_bytes", "gauge", "Most bytes of artifacts.", space.budget_bytes),
                    ("dpm_disk_free_bytes", "gauge", "Bytes free on the store's disk.", space.free_bytes),
                ]);
            }
            Err(e) => gauges.not_ready.push(e.to_string()),
        }
        if let Err(e) = rooms.store.check() {
            gauges.not_ready.push(e.to_string());
        }
        if rooms.resolve.indexes().is_empty() && rooms.images.registries().is_empty() {
            gauges.not_ready.push("no upstream is configured".into());
        }
        let c = rooms.fetch.counters();
        let origins = rooms.client.origins();
        gauges.metrics.extend([
            ("dpm_flights_total", "counter", "Downloads started.", c.flights.load(Relaxed)),
            (
                "dpm_flights_joined_total",
                "counter",
                "Requests that joined a download.",
                c.joined.load(Relaxed),
            ),
            ("dpm_flights", "gauge", "Downloads under way.", rooms.fetch.in_flight() as u64),
            (
                "dpm_passed_total",
                "counter",
                "Requests passed through for want of room.",
                c.passed.load(Relaxed),
            ),
            (
                "dpm_upstream_bytes_total",
                "counter",
                "Bytes of artifacts from upstreams.",
                c.upstream_bytes.load(Relaxed),
            ),
            (
                "dpm_hedged_total",
                "counter",
                "Slow downloads from peers that the upstream was asked to help with.",
                c.hedged.load(Relaxed),
            ),
            (
                "dpm_verify_failures_total",
                "counter",
                "Downloads with the wrong digest.",
                c.mismatches.load(Relaxed),
            ),
            ("dpm_resumed_total", "counter", "Downloads taken up again.", c.resumed.load(Relaxed)),
            (
                "dpm_store_failures_total",
                "counter",
                "Artifacts served but not stored.",
                c.store_failures.load(Relaxed),
            ),
            (
                "dpm_upstream_requests_total",
                "counter",
                "Requests to upstreams.",
                origins.iter().map(|o| o.requests).sum(),
            ),
            ("dpm_panics_total", "counter", "Tasks that panicked: bugs.", crate::rt::panics()),
        ]);
        let rates: Vec<_> = origins
            .iter()
            .filter_map(|o| Some((o.origin.split("://").last()?.to_owned(), o.rate?.0)))
            .collect();
        let labelled = |name, help, of: fn(&RateLimit) -> u64| Labelled {
            name,
            help,
            label: "registry",
            values: rates.iter().map(|(registry, rate)| (registry.clone(), of(rate))).collect(),
        };
        gauges.labelled.extend([
            labelled("dpm_upstream_ratelimit", "Requests that a registry answers in its window.", |r| {
                r.limit
            }),
            labelled("dpm_upstream_ratelimit_remaining", "Requests that it still answers.", |r| r.remaining),
        ]);
        if let Some((swarm, exchange)) = &rooms.near {
            let c = exchange.counters();
            gauges.metrics.extend([
                ("dpm_peers", "gauge", "Peers connected.", swarm.peers().len() as u64),
                (
                    "dpm_near_taken_bytes_total",
                    "counter",
                    "Bytes of chunks taken from peers.",
                    c.taken_bytes.load(Relaxed),
                ),
                (
                    "dpm_near_again_bytes_total",
                    "counter",
                    "Bytes of chunks that came from a second peer.",
                    c.again_bytes.load(Relaxed),
                ),
                (
                    "dpm_near_given_bytes_total",
                    "counter",
                    "Bytes of chunks given to peers.",
                    c.given_bytes.load(Relaxed),
                ),
                (
                    "dpm_near_elsewhere_total",
                    "counter",
                    "Chunks that a peer was sent elsewhere for.",
                    c.elsewhere.load(Relaxed),
                ),
                (
                    "dpm_near_questions_total",
                    "counter",
                    "Questions of peers answered.",
                    c.answered.load(Relaxed),
                ),
                (
                    "dpm_near_wrong_chunks_total",
                    "counter",
                    "Chunks from peers with wrong bytes.",
                    c.wrong_chunks.load(Relaxed),
                ),
            ]);
        }
        gauges
    }
}
