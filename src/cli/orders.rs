//! Giving an order: to the node that runs on the data folder, or carried out here when none does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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

/// What an order takes and gives beside its outcome.
pub(super) struct Streams<'a> {
    /// What it reads, on a thread of its own.
    pub(super) input: Box<dyn Read + Send>,
    /// Where its bytes go.
    pub(super) output: &'a mut dyn Write,
}

/// Carries out an order and prints its outcome. Gives the exit code.
pub(super) fn give(order: &Order, config: Option<PathBuf>, data: Option<PathBuf>, json: bool) -> Result<u8> {
    let streams = Streams { input: Box::new(std::io::empty()), output: &mut std::io::sink() };
    let outcome = carry_out(order, config, data, json, streams)?;
    if json {
        show::json(&outcome);
    } else {
        show::outcome(order, &outcome);
    }
    let damaged = outcome["damaged"].as_array().is_some_and(|d| !d.is_empty());
    Ok(u8::from(damaged))
}

/// Carries out an order and gives its outcome; shows how far it is unless that is to be `quiet`.
pub(super) fn carry_out(
    order: &Order,
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    quiet: bool,
    streams: Streams<'_>,
) -> Result<Value> {
    let flags = Flags { config, data, ..Flags::default() };
    let config = Config::stated(&flags, &Machine::here())?;
    let mut progress = |state: &Value| {
        if !quiet {
            show::progress(order, state);
        }
    };
    let socket = config.data.join(CONTROL_SOCKET);
    let outcome = match UnixStream::connect(&socket) {
        Ok(stream) => ask(stream, order, streams, &mut progress),
        Err(_) => here(config, order, streams, &mut progress),
    };
    show::end_progress();
    outcome
}

/// Without a running node: the store is ours for the moment.
fn here(
    mut config: Config,
    order: &Order,
    mut streams: Streams<'_>,
    progress: &mut dyn FnMut(&Value),
) -> Result<Value> {
    if matches!(order, Order::Room(_)) {
        bail!("no node runs on {}: rooms need one, which `dpm serve` starts", config.data.display());
    }
    // What is brought may be the first that is stored.
    let fetches = matches!(order, Order::Prefetch(_));
    let first = fetches || matches!(order, Order::Import { .. });
    if !config.data.join("format").exists() && !first {
        bail!(
            "nothing is stored in {} yet, and no node runs there; --data names another folder",
            config.data.display()
        );
    }
    let learned = crate::config::load_learned(&config.data, std::time::SystemTime::now());
    if config.pypi.is_empty()
        && let Some((_, learned)) = learned.pypi
    {
        config.pypi = learned;
    }
    if config.apt.is_none() {
        config.apt = learned.apt.map(|(_, learned)| learned);
    }
    // An order looks at what is there: upstreams are the node's business. But to fetch is what this one is for.
    config.offline |= !fetches;
    let executor = Executor::start(1).context("start a thread")?;
    let flights = executor.tasks();
    let rooms = Rooms::open(&config, &Tuning::default(), &flights)?;
    let (store, client) = (rooms.store.clone(), rooms.client.clone());
    let admin = Admin::new(&config, rooms, None);
    let Streams { input, output } = &mut streams;
    let outcome = admin.carry_through(order, input, output, &mut |state| progress(&state));
    // A page may still be asked for behind the outcome.
    client.close();
    future::block_on(flights.finish());
    store.close()?;
    outcome.map_err(|e| anyhow::anyhow!(e))
}

/// Pieces of an input that wait to be sent.
const WAITING: usize = 4;

/// Bytes of an input that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Asks the running node.
fn ask(
    stream: UnixStream,
    order: &Order,
    streams: Streams<'_>,
    progress: &mut dyn FnMut(&Value),
) -> Result<Value> {
    let Streams { mut input, output } = streams;
    let takes = match order {
        Order::Import { .. } => true,
        Order::Room(order) => order.takes_bytes(),
        _ => false,
    };
    let (sender, receiver) = async_channel::bounded(WAITING);
    // Why the input ended, where that was not its end.
    let failed = Arc::new(Mutex::new(None));
    if takes {
        let failed = failed.clone();
        // Nobody waits for it: it may sit in a read that never ends when the outcome is known.
        std::thread::spawn(move || {
            let read = read_on(&mut input, &sender);
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = read.err();
        });
    }
    let body = if takes { Out::lines(receiver) } else { Out::empty() };
    let outcome = future::block_on(talk(stream, order, body, output, progress));
    // Its own trouble explains the node's.
    match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(e) => Err(e).context("read what the order takes"),
        None => outcome,
    }
}

/// Reads an input to its end, or until nobody takes it any more.
fn read_on(input: &mut dyn Read, sender: &async_channel::Sender<Bytes>) -> std::io::Result<()> {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let length = match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        piece.truncate(length);
        if sender.send_blocking(Bytes::from(piece)).is_err() {
            return Ok(());
        }
    }
}

async fn talk(
    stream: UnixStream,
    order: &Order,
    body: Out,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(&Value),
) -> Result<Value> {
    let stream = Async::new(stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(crate::front::io(stream)).await.context("talk to the node")?;
    let request = http::Request::post(order.uri()).header("host", "dpm").body(body)?;
    let answer = async {
        let response = sender.send_request(request).await.context("the node did not answer")?;
        lines(response.into_body(), output, progress).await
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

/// Reads lines of JSON to the last one, and the bytes between them.
async fn lines(
    mut body: Incoming,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(&Value),
) -> Result<Value> {
    let mut waiting: Vec<u8> = Vec::new();
    // Bytes that are still to come before the next line.
    let mut bytes = 0;
    loop {
        let frame = future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame.transpose().context("the node broke off")? else { break };
        let mut data: Bytes = frame.into_data().unwrap_or_default();
        while !data.is_empty() {
            if bytes > 0 {
                let piece = data.split_to(data.len().min(bytes));
                bytes -= piece.len();
                output.write_all(&piece).context("write it")?;
                continue;
            }
            let Some(end) = data.iter().position(|b| *b == b'\n') else {
                waiting.extend_from_slice(&data);
                if waiting.len() > LINE_BYTES {
                    bail!("the node's answer is too long");
                }
                break;
            };
            waiting.extend_from_slice(&data.split_to(end + 1));
            let line = std::mem::take(&mut waiting);
            let mut value: Value = serde_json::from_slice(&line).context("the node's answer is no JSON")?;
            if let Some(length) = value["bytes"].as_u64() {
                bytes = usize::try_from(length)?;
            } else if let Some(state) = value.get("progress") {
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
