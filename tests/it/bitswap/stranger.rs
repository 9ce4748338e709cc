//! A peer that says whatever a test wants it to say.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use dpm::base::{Cid, Multiaddr, PeerId};
use dpm::exchange::BITSWAP;
use dpm::rt::{Executor, Tasks};
use dpm::swarm::{Identity, Limits, Options, Stream, Swarm};
use dpm::wire::FrameReader;
use dpm::wire::bitswap::{Entry, MESSAGE_BYTES, Message, WantType, Wantlist};
use futures_lite::future::{self, block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::support::{LIMIT, Node, until};

/// Its messages that wait to be looked at.
const WAITING: usize = 1024;

pub struct Stranger {
    pub swarm: Swarm,
    heard: Receiver<Message>,
    tasks: Tasks,
    _executor: Executor,
}

/// What it does with streams that it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Reads them.
    Listens,
    /// Holds them and reads nothing.
    Deaf,
}

impl Stranger {
    /// One that is connected to a node.
    pub fn of(node: &Node, manner: Manner) -> Self {
        Self::known(node, manner, Identity::fresh())
    }

    /// The same, with an identity that the node may know.
    pub fn known(node: &Node, manner: Manner, identity: Identity) -> Self {
        let (peer, address) = node.as_peer();
        let stranger = Self::at(peer, address, manner, identity);
        let (theirs, id) = (&node.daemon().rooms().near.as_ref().expect("a swarm").0, stranger.id());
        until("it has introduced itself", || {
            theirs.peers().iter().any(|p| p.peer == id && !p.protocols.is_empty())
        });
        stranger
    }

    /// One that is connected to a node of another process.
    pub fn at(peer: PeerId, address: Multiaddr, manner: Manner, identity: Identity) -> Self {
        let executor = Executor::start(1).expect("a thread");
        let tasks = executor.tasks();
        let options = Options {
            key: identity,
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")],
            protocols: vec![BITSWAP],
            agent: "stranger".into(),
            limits: Limits::default(),
            admit: Arc::new(|_, _| true),
        };
        let (swarm, _) = Swarm::start(options, &tasks).expect("a swarm");
        let (sender, heard) = async_channel::bounded(WAITING);
        let (accepting, spawner) = (swarm.clone(), tasks.spawner());
        tasks.spawn(async move {
            let mut held = Vec::new();
            while let Some((_, stream)) = accepting.accept(BITSWAP).await {
                if manner == Manner::Deaf {
                    held.push(stream);
                    continue;
                }
                let sender = sender.clone();
                spawner.spawn(async move { listen(stream, sender).await });
            }
        });
        swarm.dial(peer, vec![address]);
        let stranger = Self { swarm, heard, tasks, _executor: executor };
        until("it is connected", || stranger.swarm.peers().iter().any(|p| !p.protocols.is_empty()));
        stranger
    }

    pub fn id(&self) -> PeerId {
        self.swarm.peer_id()
    }

    /// A stream to the node.
    pub fn open(&self) -> Stream {
        let peer = self.swarm.peers()[0].peer;
        block_on(self.swarm.open(peer, BITSWAP)).expect("a stream")
    }

    /// Sends bytes on a stream of their own. Whether the node took them does not matter here.
    pub fn send_bytes(&self, bytes: &[u8]) {
        let mut stream = self.open();
        block_on(future::or(
            async {
                if stream.write_all(bytes).await.is_ok() && stream.close().await.is_ok() {
                    let _ = stream.read(&mut [0]).await;
                }
            },
            async {
                async_io::Timer::after(LIMIT).await;
                panic!("the node neither takes nor refuses");
            },
        ));
    }

    pub fn send(&self, message: &Message) {
        self.send_bytes(&message.frame().concat());
    }

    /// Wants these.
    pub fn want(&self, cids: &[Cid], kind: WantType, send_dont_have: bool) {
        let entry = |cid: &Cid| Entry { send_dont_have, ..Entry::want(*cid, kind, 1) };
        let wantlist = Wantlist { entries: cids.iter().map(entry).collect(), full: false };
        self.send(&Message { wantlist: Some(wantlist), ..Message::default() });
    }

    /// The next message.
    #[track_caller]
    pub fn hear(&self) -> Message {
        self.hear_within(LIMIT).expect("it says something")
    }

    /// The next message, if one comes within this time.
    pub fn hear_within(&self, time: Duration) -> Option<Message> {
        block_on(future::or(async { self.heard.recv().await.ok() }, async {
            async_io::Timer::after(time).await;
            None
        }))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        block_on(async {
            self.swarm.stop().await;
            self.tasks.cancel().await;
        });
    }
}

async fn listen(mut stream: Stream, sender: async_channel::Sender<Message>) {
    let mut frames = FrameReader::new(MESSAGE_BYTES);
    loop {
        while let Ok(Some(frame)) = frames.next_frame() {
            let message = Message::decode(&frame).expect("what a node says is well-formed");
            if sender.send(message).await.is_err() {
                return;
            }
        }
        match stream.read(frames.room()).await {
            Ok(0) | Err(_) => return,
            Ok(count) => frames.took(count),
        }
    }
}
