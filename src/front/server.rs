//! Accepting: a permit first, then a client; every connection is a task of the server's own set.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use async_lock::Semaphore;
use futures_lite::future;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};

use crate::base::limits;
use crate::rt::{Tasks, Ticker};

use super::body::Out;
use super::connection::{CoarseTimer, Connection, Shutdown};
use super::wire::Wire;

/// Bytes of a request's head. Package clients send under 1 KiB; cookies and long tokens fit.
const HEAD_BYTES: usize = 16 << 10;

/// Header lines of a request.
const HEADERS: usize = 64;

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request of a client at this address. Errors are answers too.
    fn answer(&self, client: IpAddr, request: Request<Incoming>) -> Answering;
}

/// An answer that is there, or on its way.
#[allow(clippy::large_enum_variant, reason = "moved once; a box would cost each warm answer an allocation")]
pub enum Answering {
    /// There: warm answers cost no allocation of a future.
    Now(Option<Response<Out>>),
    /// On its way.
    Later(Pin<Box<dyn Future<Output = Response<Out>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<Out>, Infallible>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => Poll::Ready(Ok(response.take().expect("polled once"))),
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

/// Where clients come in.
pub enum Listener {
    /// TCP.
    Tcp(Async<std::net::TcpListener>),
    /// A Unix socket: clients count as loopback.
    Unix(Async<UnixListener>),
}

/// Accepts clients until `stop` is ready, then lets the running answers end.
///
/// At most `connections` clients at once: further ones wait in the kernel's queue. Must be awaited to its end.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: H,
    tasks: Tasks,
    ticker: Ticker,
    connections: usize,
    stop: async_channel::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(connections));
    loop {
        let permit = permits.acquire_arc().await;
        let accepted = future::or(async { Some(listener.accept().await) }, async {
            // An error is a dropped sender: as good as a word.
            let _ = stop.recv().await;
            None
        });
        let client = match accepted.await {
            None => break,
            Some(Ok(client)) => client,
            Some(Err(e)) => {
                // Out of descriptors, or a client that went at once: neither ends the server.
                log::debug!("accepting a client: {e}");
                async_io::Timer::after(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let (handler, ticker, stop) = (handler.clone(), ticker.clone(), stop.clone());
        tasks.spawn(async move {
            match client {
                Client::Tcp(socket, address) => {
                    attend(Connection::new(socket, ticker.clone()), address, handler, ticker, stop).await
                }
                Client::Unix(socket) => {
                    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
                    attend(Connection::new(socket, ticker.clone()), address, handler, ticker, stop).await;
                }
            }
            drop(permit);
        });
    }
    drop(listener);
}

enum Client {
    Tcp(Async<std::net::TcpStream>, IpAddr),
    Unix(Async<std::os::unix::net::UnixStream>),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Client> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                // Answers are written whole: waiting for more only adds 40 ms.
                socket.get_ref().set_nodelay(true)?;
                Ok(Client::Tcp(socket, address.ip()))
            }
            Self::Unix(listener) => Ok(Client::Unix(listener.accept().await?.0)),
        }
    }
}

async fn attend<S, H: Handler>(
    connection: Connection<S>,
    client: IpAddr,
    handler: H,
    ticker: Ticker,
    stop: async_channel::Receiver<()>,
) where
    S: Shutdown + AsFd + Unpin + Send + 'static,
    for<'a> &'a S: std::io::Read + std::io::Write,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(CoarseTimer(ticker))
        .header_read_timeout(limits::HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        // Bodies are handed over by reference.
        .writev(true);
    // No `pipeline_flush`: with it hyper 1 buffers bodies without a bound, and holds an answer back while anything
    // unread is there, also what cannot be parsed, so that 400 and 431 are never sent.
    let attending = Attending { client, handler, wire: connection.wire() };
    let serving = http.serve_connection(connection, attending);
    let mut serving = std::pin::pin!(serving);
    let served = future::or(async { Some(serving.as_mut().await) }, async {
        let _ = stop.recv().await;
        None
    });
    let served = served.await;
    let ended = match served {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        log::debug!("connection of {client}: {e}");
    }
}

struct Attending<H> {
    client: IpAddr,
    handler: H,
    wire: Wire,
}

impl<H: Handler> Service<Request<Incoming>> for Attending<H> {
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Sending;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Sending { answering: self.handler.answer(self.client, request), wire: self.wire.clone() }
    }
}

/// An answer on its way to the connection it is for.
struct Sending {
    answering: Answering,
    wire: Wire,
}

impl Future for Sending {
    type Output = Result<Response<Out>, Infallible>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        Pin::new(&mut this.answering).poll(cx).map_ok(|mut response| {
            response.body_mut().over(&this.wire);
            response
        })
    }
}
