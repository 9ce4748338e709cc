//! The control socket: orders over HTTP on a Unix socket that only its owner can open.
//!
//! `POST /ORDER?what=…` answers with lines of JSON: `{"progress": …}` as work goes on, then `{"done": …}` or
//! `{"error": …}`.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::front::{Answering, Handler, Out};
use crate::rt::{Gate, Tasks};

use super::{Admin, Order};

/// Lines that wait for the operator's terminal; work waits when it is full.
const LINES: usize = 16;

/// Answers orders.
#[derive(Clone)]
pub(super) struct Control {
    admin: Admin,
    /// Its own: orders wait for the disk's.
    gate: Gate,
    tasks: Tasks,
}

impl Control {
    pub(super) fn new(admin: Admin, gate: Gate, tasks: Tasks) -> Self {
        Self { admin, gate, tasks }
    }
}

impl Order {
    /// The order as it stands in a request.
    pub fn uri(&self) -> String {
        let (name, what) = match self {
            Self::Status => ("status", None),
            Self::Why(what) => ("why", Some(what)),
            Self::Verify => ("verify", None),
            Self::Purge(what) => ("purge", Some(what)),
            Self::Pin(what) => ("pin", Some(what)),
            Self::Unpin(what) => ("unpin", Some(what)),
            Self::Gc => ("gc", None),
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(what) = what {
            query.append_pair("what", what);
        }
        format!("/{name}?{}", query.finish())
    }

    fn parse(path: &str, query: &str) -> Option<Self> {
        let what = || {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(k, _)| k == "what").map(|(_, v)| v.into_owned())
        };
        Some(match path {
            "/status" => Self::Status,
            "/why" => Self::Why(what()?),
            "/verify" => Self::Verify,
            "/purge" => Self::Purge(what()?),
            "/pin" => Self::Pin(what()?),
            "/unpin" => Self::Unpin(what()?),
            "/gc" => Self::Gc,
            _ => return None,
        })
    }
}

impl Handler for Control {
    fn answer(&self, _: IpAddr, request: Request<Incoming>) -> Answering {
        let order = Order::parse(request.uri().path(), request.uri().query().unwrap_or_default());
        let (Some(order), &Method::POST) = (order, request.method()) else {
            let mut response = Response::new(Out::full("{\"error\":\"no such order\"}\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Answering::Now(Some(response));
        };
        let (sender, receiver) = async_channel::bounded(LINES);
        let (admin, gate) = (self.admin.clone(), self.gate.clone());
        self.tasks.spawn(async move {
            gate.run(move || {
                let mut progress = |state: Value| {
                    // A full queue or a gone operator costs a line, not the work.
                    let _ = sender.try_send(line(&json!({"progress": state})));
                };
                let outcome = match admin.carry_out(&order, &mut progress) {
                    Ok(outcome) => json!({"done": outcome}),
                    Err(e) => json!({"error": e.to_string()}),
                };
                let _ = sender.send_blocking(line(&outcome));
            })
            .await;
        });
        Answering::Now(Some(Response::new(Out::lines(receiver))))
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_wire() {
        let orders = [
            Order::Status,
            Order::Why("http://127.0.0.1:3142/pypi/simple/a b&c=?é/".into()),
            Order::Verify,
            Order::Purge("sha256:00".into()),
            Order::Pin("flask".into()),
            Order::Unpin("flask".into()),
            Order::Gc,
        ];
        for order in orders {
            let uri: http::Uri = order.uri().parse().unwrap();
            assert_eq!(Order::parse(uri.path(), uri.query().unwrap_or_default()), Some(order));
        }
        assert_eq!(Order::parse("/why", ""), None);
    }
}
