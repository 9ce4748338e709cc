//! Giving an order: to the node that runs on the data folder, or carried out here when none does.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use async_io::Async;
use bytes::Bytes;
use futures_lite::future;
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::config::{Config, Flags, Machine};
use crate::daemon::{Admin, CONTROL_SOCKET, Order, Rooms, Tuning};
use crate::front::Out;
use crate::rt::Executor;

use super::show;

/// Longest line of an answer. The longest is a `verify` that names every artifact of a broken disk.
const LINE_BYTES: usize = 64 << 20;

/// Carries out an order and prints its outcome. Gives the exit code.
pub(super) fn give(order: &Order, config: Option<PathBuf>, data: Option<PathBuf>, json: bool) -> Result<u8> {
    let flags = Flags { config, data, ..Flags::default() };
    let config = Config::stated(&flags, &Machine::here())?;
    let mut progress = |state: &Value| {
        if !json {
            show::progress(order, state);
        }
    };
    let socket = config.data.join(CONTROL_SOCKET);
    let outcome = match UnixStream::connect(&socket) {
        Ok(stream) => future::block_on(ask(stream, order, &mut progress))?,
        Err(_) => here(config, order, &mut progress)?,
    };
    show::end_progress();
    if json {
        show::json(&outcome);
    } else {
        show::outcome(order, &outcome);
    }
    let damaged = outcome["damaged"].as_array().is_some_and(|d| !d.is_empty());
    Ok(u8::from(damaged))
}

/// Without a running node: the store is ours for the moment.
fn here(mut config: Config, order: &Order, progress: &mut dyn FnMut(&Value)) -> Result<Value> {
    if !config.data.join("format").exists() {
        bail!(
            "nothing is stored in {} yet, and no node runs there; --data names another folder",
            config.data.display()
        );
    }
    if config.pypi.is_empty()
        && let Some((_, learned)) = crate::config::load_learned(&config.data, std::time::SystemTime::now())
    {
        config.pypi = learned;
    }
    // An order looks at what is there. Upstreams are the node's business.
    config.offline = true;
    let executor = Executor::start(1).context("start a thread")?;
    let flights = executor.tasks();
    let rooms = Rooms::open(&config, &Tuning::default(), &flights)?;
    let store = rooms.store.clone();
    let admin = Admin::new(&config, rooms, None);
    let outcome = admin.carry_out(order, &mut |state| progress(&state));
    store.close()?;
    outcome.map_err(|e| anyhow::anyhow!(e))
}

async fn ask(stream: UnixStream, order: &Order, progress: &mut dyn FnMut(&Value)) -> Result<Value> {
    let stream = Async::new(stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(crate::front::io(stream)).await.context("talk to the node")?;
    let request = http::Request::post(order.uri()).header("host", "dpm").body(Out::empty())?;
    let answer = async {
        let response = sender.send_request(request).await.context("the node did not answer")?;
        lines(response.into_body(), progress).await
    };
    let driving = async {
        let ended = connection.await;
        match ended {
            Ok(()) => future::pending().await,
            Err(e) => Err(anyhow::anyhow!(e).context("talk to the node")),
        }
    };
    future::or(answer, driving).await
}

/// Reads lines of JSON to the last one.
async fn lines(mut body: Incoming, progress: &mut dyn FnMut(&Value)) -> Result<Value> {
    let mut waiting: Vec<u8> = Vec::new();
    loop {
        let frame = future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame.transpose().context("the node broke off")? else { break };
        let data: Bytes = frame.into_data().unwrap_or_default();
        waiting.extend_from_slice(&data);
        if waiting.len() > LINE_BYTES {
            bail!("the node's answer is too long");
        }
        while let Some(end) = waiting.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let mut value: Value = serde_json::from_slice(&line).context("the node's answer is no JSON")?;
            if let Some(state) = value.get("progress") {
                progress(state);
            } else if let Some(error) = value["error"].as_str() {
                bail!("{error}");
            } else {
                return Ok(value["done"].take());
            }
        }
    }
    bail!("the node stopped in the middle")
}
