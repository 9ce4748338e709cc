//! Neighbours that lie, break the protocol, promise and do not give, or want too much: the client gets the right file,
//! the liar is named where its lie is proved, and an honest neighbour never is.

mod pip;
mod siege;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dpm::base::{PeerId, Sha256, raw_cid};
use dpm::exchange::Exchange;
use dpm::peers::goes_first;
use dpm::wire::frame;
use dpm::wire::near::{Ask, News, Offer, Open, Tell};
use futures_lite::future::block_on;

use crate::support::liar::{CHUNK, Files, Liar, Manners, Mouth, chunk_of, row, whole};
use crate::support::{Answer, Fault, File, Node, Project, Random, Upstream, attempt, random_bytes, until};

/// Five chunks, the last one short.
const LARGE: usize = 4 * CHUNK + 12_345;

/// A node, its upstream, and what is published there.
struct Scene {
    upstream: Upstream,
    nodes: Vec<Node>,
    files: Files,
    count: usize,
}

impl Scene {
    fn new(nodes: usize) -> Self {
        let upstream = Upstream::start();
        let nodes = Node::village(nodes, &upstream.url("/simple/"));
        Self { upstream, nodes, files: Files::default(), count: 0 }
    }

    fn node(&self) -> &Node {
        &self.nodes[0]
    }

    fn exchange(&self) -> &Exchange {
        self.node().exchange()
    }

    /// A new file that only the upstream has.
    fn publish(&mut self, size: usize) -> Project {
        self.count += 1;
        let project = Project::new(&format!("p{}", self.count), size + self.count).publish(&self.upstream);
        self.files.add(&project.bytes);
        project
    }

    /// The right bytes come.
    #[track_caller]
    fn get(&self, what: &str, project: &Project) -> Answer {
        let answer = self.node().get(&project.file());
        assert_eq!(answer.status, 200, "{what}");
        assert!(answer.body == project.bytes, "{what}: other bytes");
        self.node().settle();
        answer
    }

    fn refuse(&self, project: &Project) {
        let file = File::new(project.bytes.clone());
        self.upstream.faulty(&project.file_path(), file, |_| Some(Fault::Says("403 Forbidden")));
    }

    /// One liar with these manners, which says it has this file: gives the liar, and how it was.
    #[track_caller]
    fn suffer(&mut self, what: &str, size: usize, manners: Manners) -> (Liar, Answer) {
        let liar = Liar::near(self.node(), manners);
        let answer = self.rely(what, size, &liar);
        (liar, answer)
    }

    #[track_caller]
    fn rely(&mut self, what: &str, size: usize, liar: &Liar) -> Answer {
        let project = self.publish(size);
        let told = told_by_one(self, &project, liar);
        let answer = self.get(what, &project);
        assert_eq!(self.node().get("/healthz").status, 200, "{what}");
        drop(told);
        answer
    }

    /// The same with one that only says so when it is asked. On a busy machine it may answer too late to be heard, so
    /// further files follow until `heard`.
    #[track_caller]
    fn ask(&mut self, what: &str, size: usize, liar: &Liar, heard: impl Fn(&Self) -> bool) -> Answer {
        for _ in 0..20 {
            let project = self.publish(size);
            let answer = self.get(what, &project);
            if heard(self) {
                return answer;
            }
        }
        panic!("{what}: {} was asked {} times and never heard", liar.peer(), liar.asked());
    }

    /// A lie that is proved.
    #[track_caller]
    fn struck(&mut self, what: &str, size: usize, manners: Manners) {
        let (liar, answer) = self.suffer(what, size, manners);
        assert_eq!(answer.cache(), "MISS", "{what}");
        assert!(liar.strikes(self.node()) > 0, "{what}: {:#}", liar.row(self.node()));
    }

    /// Nonsense that proves no lie.
    #[track_caller]
    fn left(&mut self, what: &str, manners: Manners) {
        let begun = Instant::now();
        let (liar, answer) = self.suffer(what, LARGE, manners);
        assert_eq!(answer.cache(), "MISS", "{what}");
        assert_eq!(liar.strikes(self.node()), 0, "{what}: {:#}", liar.row(self.node()));
        eprintln!("{what}: {:?}", begun.elapsed());
    }
}

/// Has all of a file, and gives it so.
fn gives(files: &Files, twist: impl Fn(u32, &mut Vec<u8>) + Clone + Send + Sync + 'static) -> Manners {
    let files = files.clone();
    Manners::new().gives(move |mut mouth| {
        let (file, twist) = (files.of(mouth.digest), twist.clone());
        async move {
            mouth.claim(&file).await?;
            mouth.serve(&file, twist).await
        }
    })
}

/// Says these things of a file, then nothing more.
fn says<F>(files: &Files, say: impl Fn(Mouth, Arc<Vec<u8>>) -> F + Send + Sync + 'static) -> Manners
where
    F: Future<Output = std::io::Result<Mouth>> + Send + 'static,
{
    let files = files.clone();
    Manners::new().gives(move |mouth| {
        let file = files.of(mouth.digest);
        let said = say(mouth, file);
        async move { said.await?.silence().await }
    })
}

/// Has all of another file, of the same size, and gives that.
fn gives_another(files: &Files) -> Manners {
    let files = files.clone();
    Manners::new().gives(move |mut mouth| {
        let other = other(&files.of(mouth.digest));
        async move {
            mouth.claim(&other).await?;
            mouth.serve(&other, |_, _| {}).await
        }
    })
}

/// A file that differs in its third chunk.
fn other(file: &[u8]) -> Vec<u8> {
    let mut other = file.to_vec();
    let at = (2 * CHUNK + 5).min(other.len().saturating_sub(1));
    other[at] ^= 1;
    other
}

fn spoil(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
}

#[test]
fn lies_that_are_proved() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    for (what, bad) in [("first", 0), ("middle", 2), ("last", 4)] {
        let twist = move |n: u32, bytes: &mut Vec<u8>| {
            if n == bad {
                spoil(bytes)
            }
        };
        scene.struck(&format!("other bytes in the {what} chunk"), LARGE, gives(&files, twist));
    }
    scene.struck("other bytes in the only chunk", 50_000, gives(&files, |_, bytes| spoil(bytes)));
    let inline = Manners::new().offers(|digest| match whole(digest, 5000) {
        Offer::Whole { size, root, .. } => {
            Some(Offer::Whole { size, root, root_block: Some(vec![7u8; 5000].into()) })
        }
        other => Some(other),
    });
    let liar = Liar::near(scene.node(), inline);
    scene.ask("another root block", 5000, &liar, |scene| liar.strikes(scene.node()) > 0);
    drop(liar);
    scene.struck("a layout of another file", LARGE, gives_another(&files));
    let resized = says(&files, |mut mouth, file| async move {
        let root = Some(raw_cid(Sha256::of(&file)));
        mouth.tell(Tell::Head { size: Some(file.len() as u64 + 1), root }).await?;
        Ok(mouth)
    });
    scene.struck("another size than the index and the file have", LARGE, resized);
    let changing = says(&files, |mut mouth, file| async move {
        mouth.claim(&file).await?;
        mouth.tell(Tell::Leaves { first: 1, hashes: vec![Sha256([9; 32])] }).await?;
        Ok(mouth)
    });
    scene.struck("leaves that change", LARGE, changing);
}

#[test]
fn nonsense_is_left_at_once() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let first = |tell: Vec<Tell>| {
        says(&files, move |mut mouth, file| {
            let tell = tell.clone();
            async move {
                mouth.tell(Tell::Head { size: Some(file.len() as u64), root: None }).await?;
                for tell in tell {
                    mouth.tell(tell).await?;
                }
                Ok(mouth)
            }
        })
    };
    let hashes = vec![Sha256([1; 32]); 3];
    scene.left("leaves beyond the end", first(vec![Tell::Leaves { first: 3, hashes: hashes.clone() }]));
    scene.left("leaves with a gap", first(vec![Tell::Leaves { first: 1, hashes: hashes.clone() }]));
    scene.left("chunks without leaves", first(vec![Tell::Have { first: 0, count: 5 }]));
    let beyond = vec![Tell::Leaves { first: 0, hashes }, Tell::Have { first: 2, count: 9000 }];
    scene.left("chunks beyond the leaves", first(beyond));
    scene.left("chunks with absurd numbers", first(vec![Tell::Have { first: u32::MAX, count: u32::MAX }]));
    scene.left("a chunk never asked for", first(vec![Tell::Chunk { n: 3, length: 5 }]));
    scene.left("gone at once", first(vec![Tell::Gone { reason: 0 }]));
    scene.left("words without end", first(vec![Tell::Have { first: 0, count: 0 }; 3000]));
    for (what, bytes) in [
        ("garbage", vec![9, 0xff, 0xff, 0xff, 0, 1, 2, 3, 4, 5]),
        ("an oversized frame", vec![0xff, 0xff, 0xff, 0x7f, 1, 2, 3]),
        ("a length without end", vec![0xff; 64]),
    ] {
        let raw = says(&files, move |mut mouth, _| {
            let bytes = bytes.clone();
            async move {
                mouth.say(&bytes).await?;
                Ok(mouth)
            }
        });
        scene.left(what, raw);
    }
    let cut = {
        let files = files.clone();
        Manners::new().gives(move |mut mouth| {
            let file = files.of(mouth.digest);
            async move {
                mouth.claim(&file).await?;
                mouth.last(&[100, 1, 2, 3]).await
            }
        })
    };
    scene.left("a truncated frame", cut);
    let answer = |length: i64, bytes: usize| {
        let files = files.clone();
        Manners::new().gives(move |mut mouth| {
            let file = files.of(mouth.digest);
            async move {
                mouth.claim(&file).await?;
                let (n, _) = mouth.want().await?;
                let length = (chunk_of(&file, n).len() as i64 + length) as u32;
                mouth.tell(Tell::Chunk { n, length }).await?;
                mouth.last(&vec![0; bytes]).await
            }
        })
    };
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let noise: Vec<u8> =
            (0..400).flat_map(|_| frame(&random_bytes(random.next(), random.below(20) as usize))).collect();
        let noisy = says(&files, move |mut mouth, file| {
            let noise = noise.clone();
            async move {
                mouth.claim(&file).await?;
                mouth.say(&noise).await?;
                Ok(mouth)
            }
        });
        scene.left(&format!("noise {seed}"), noisy);
    }
    scene.left("a chunk of another length", answer(-1, 10));
    scene.left("a chunk that ends in its middle", answer(0, 300_000));
}

#[test]
fn unknown_kinds_are_passed_over() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let later = Manners::new().gives(move |mut mouth| {
        let file = files.of(mouth.digest);
        async move {
            mouth.tell(Tell::Unknown(77)).await?;
            mouth.claim(&file).await?;
            mouth.tell(Tell::Unknown(78)).await?;
            mouth.serve(&file, |_, _| {}).await
        }
    });
    let (liar, answer) = scene.suffer("a later version", LARGE, later.clone());
    assert_eq!((answer.cache(), liar.strikes(scene.node())), ("PEER", 0));
    drop(liar);
    let liar = Liar::near(scene.node(), later.offers(|_| Some(Offer::Unknown(9))));
    let answer = scene.ask("an unknown offer", LARGE, &liar, |_| liar.asked() > 0);
    assert_eq!((answer.cache(), liar.strikes(scene.node())), ("MISS", 0));
    // And what it asks in a way that is not known yet is not answered, nor does it hurt.
    let node = scene.node().as_peer().0;
    let mut mouth = liar.open(node, &Open::Unknown(7).frame()).unwrap();
    assert!(!block_on(mouth.hear()).is_ok_and(|heard| heard.is_some()));
}

/// It costs something once, is noted, and is not waited for again right away.
#[track_caller]
fn costs_once(scene: &mut Scene, what: &str, manners: Manners) {
    let liar = Liar::near(scene.node(), manners);
    costs_this_one_once(scene, what, &liar);
}

#[track_caller]
fn costs_this_one_once(scene: &mut Scene, what: &str, liar: &Liar) {
    let begun = Instant::now();
    let answer = match liar.lists() {
        true => scene.rely(what, LARGE, liar),
        false => scene.ask(what, LARGE, liar, |_| liar.taken() > 0),
    };
    let took = begun.elapsed();
    assert_eq!(answer.cache(), "MISS", "{what}");
    let row = liar.row(scene.node());
    assert_eq!((row["strikes"].as_u64(), row["let_downs"].as_u64()), (Some(0), Some(1)), "{what}: {row:#}");
    let taken = liar.taken();
    for _ in 0..2 {
        let project = scene.publish(LARGE);
        scene.get(what, &project);
    }
    assert_eq!(liar.taken(), taken, "{what}: it was relied on again");
    eprintln!("{what}: {took:?}");
}

#[test]
fn silence_costs_once() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    costs_once(&mut scene, "all of everything, and silence", Manners::new());
    let had = says(&files, |mut mouth, file| async move {
        mouth.claim(&file).await?;
        Ok(mouth)
    });
    costs_once(&mut scene, "chunks offered and not given", had);
    let empty = says(&files, |mut mouth, file| async move {
        mouth.claim(&file).await?;
        let (n, _) = mouth.want().await?;
        mouth.tell(Tell::Chunk { n, length: chunk_of(&file, n).len() as u32 }).await?;
        Ok(mouth)
    });
    costs_once(&mut scene, "a chunk whose bytes never come", empty);
}

#[test]
fn squatters_cost_once() {
    let mut scene = Scene::new(1);
    let own = Arc::new(std::sync::Mutex::new(None));
    let flying = Manners::new().unlisted().offers({
        let own = own.clone();
        move |_| Some(Offer::Flying { size: None, ready: 1 << 30, of: *own.lock().unwrap() })
    });
    let liar = Liar::start(flying);
    *own.lock().unwrap() = Some(liar.peer());
    liar.meet(scene.node());
    costs_this_one_once(&mut scene, "flying for ever", &liar);
    drop(liar);
    // One that claims and never begins, and answers nothing when it is asked.
    let liar = Liar::near(scene.node(), Manners::new().offers(|_| Some(Offer::Nothing)));
    let node = scene.node().as_peer().0;
    let project = loop {
        let project = scene.publish(LARGE);
        if goes_first(&project.sha256.digest(), &liar.peer(), &node) {
            break project;
        }
    };
    let claim = Open::Ask { digests: vec![project.sha256.digest()], claim: true };
    let mut mouth = liar.open(node, &claim.frame()).unwrap();
    block_on(mouth.hear()).unwrap();
    assert_eq!(scene.get("a claim", &project).cache(), "MISS");
    assert_eq!((liar.taken() > 0, liar.let_downs(scene.node())), (true, 1));
    drop(liar);
    let claims = Manners::new().offers(|_| Some(Offer::Claimed { first: true }));
    let liar = Liar::near(scene.node(), claims);
    for _ in 0..6 {
        let project = scene.publish(LARGE);
        assert_eq!(scene.get("claimed for ever", &project).cache(), "MISS");
    }
    // It goes first by right for about one file in two; a slow machine may meet it again after the first doubt.
    assert!(liar.let_downs(scene.node()) <= 2, "{:#}", liar.row(scene.node()));
    assert!(liar.taken() <= 20, "{}", liar.taken());
}

#[test]
fn those_that_trickle_are_left() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let trickle = Manners::new().gives(move |mut mouth| {
        let file = files.of(mouth.digest);
        async move {
            mouth.claim(&file).await?;
            let (n, _) = mouth.want().await?;
            let bytes = chunk_of(&file, n).to_vec();
            mouth.tell(Tell::Chunk { n, length: bytes.len() as u32 }).await?;
            for some in bytes.chunks(100) {
                mouth.say(some).await?;
                async_io::Timer::after(Duration::from_millis(100)).await;
            }
            mouth.silence().await
        }
    });
    costs_once(&mut scene, "1 KB/s", trickle);
}

#[test]
fn a_trickler_of_many_files_does_not_keep_others_waiting() {
    let mut scene = Scene::new(2);
    let files = scene.files.clone();
    let slow: Vec<_> = (0..24).map(|_| scene.publish(LARGE)).collect();
    let fast = scene.publish(LARGE);
    // The honest one has the one; the liar is about to have all the others.
    scene.nodes[1].get(&fast.file());
    scene.nodes[1].settle();
    scene.refuse(&fast);
    let trickle = Manners::new()
        .offers({
            let fast = fast.sha256.digest();
            move |digest| Some(if *digest == fast { Offer::Nothing } else { whole(digest, 0) })
        })
        .gives(move |mut mouth| {
            let file = files.of(mouth.digest);
            async move {
                mouth.claim(&file).await?;
                let (n, _) = mouth.want().await?;
                mouth.tell(Tell::Chunk { n, length: chunk_of(&file, n).len() as u32 }).await?;
                for byte in chunk_of(&file, n).chunks(1000) {
                    mouth.say(byte).await?;
                    async_io::Timer::after(Duration::from_millis(50)).await;
                }
                mouth.silence().await
            }
        });
    let liar = Liar::near(scene.node(), trickle);
    let _told = told_by_one(&scene, &slow[0], &liar);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = slow.iter().map(|p| scope.spawn(|| scene.node().get(&p.file()))).collect();
        until("the liar is at it", || liar.taken() >= 1);
        assert_eq!(scene.node().get(&fast.file()).cache(), "PEER");
        for (answer, project) in waiting.into_iter().zip(&slow) {
            let answer = answer.join().unwrap();
            assert!(answer.status == 200 && answer.body == project.bytes, "{}", project.name);
        }
    });
    assert!(liar.let_downs(scene.node()) > 0);
    let honest = scene.nodes[1].as_peer().0;
    assert_eq!(row(scene.node(), &honest)["strikes"], 0);
}

#[test]
fn mute_ones_are_not_waited_for() {
    let mut scene = Scene::new(1);
    let liar = Liar::near(scene.node(), Manners::new().offers(|_| None));
    for _ in 0..5 {
        let project = scene.publish(1000);
        assert_eq!(scene.get("never an answer", &project).cache(), "MISS");
    }
    assert!(!scene.exchange().peers().answers(&liar.peer()));
    // A question that was given up may never have come to it.
    until("it is asked all the same", || liar.asked() >= 3);
}

#[test]
fn elsewhere_leads_nowhere() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let sends = |to: Arc<std::sync::Mutex<Option<PeerId>>>| {
        let files = files.clone();
        Manners::new().gives(move |mut mouth| {
            let (file, to) = (files.of(mouth.digest), to.clone());
            async move {
                mouth.claim(&file).await?;
                loop {
                    let (first, count) = mouth.want().await?;
                    let other = to.lock().unwrap().unwrap_or_else(PeerId::random);
                    for n in first..first + count {
                        mouth.tell(Tell::Elsewhere { n, peer: other }).await?;
                    }
                }
            }
        })
    };
    costs_once(&mut scene, "elsewhere, to nobody", sends(Arc::default()));
    let own = Arc::new(std::sync::Mutex::new(None));
    let liar = Liar::start(sends(own.clone()));
    *own.lock().unwrap() = Some(liar.peer());
    liar.meet(scene.node());
    scene.rely("elsewhere, to itself", LARGE, &liar);
    assert_eq!((liar.strikes(scene.node()), liar.let_downs(scene.node())), (0, 1));
    drop(liar);
    let (a_to, b_to) = (Arc::default(), Arc::default());
    let (a, b) = (Liar::start(sends(Arc::clone(&a_to))), Liar::start(sends(Arc::clone(&b_to))));
    *a_to.lock().unwrap() = Some(b.peer());
    *b_to.lock().unwrap() = Some(a.peer());
    a.meet(scene.node());
    b.meet(scene.node());
    let project = scene.publish(LARGE);
    let both = [a, b];
    let _told = told_by(&scene, &project, &both);
    scene.get("elsewhere, in circles", &project);
    assert_eq!(both.each_ref().map(|liar| liar.let_downs(scene.node())), [1, 1]);
}

/// Strikes of an honest neighbour: none, ever.
#[track_caller]
fn assert_honest(scene: &Scene) {
    for (a, node) in scene.nodes.iter().enumerate() {
        for (b, other) in scene.nodes.iter().enumerate().filter(|(b, _)| *b != a) {
            let row = row(node, &other.as_peer().0);
            assert_eq!(row["strikes"], 0, "node {a} of node {b}: {row:#}");
        }
    }
}

#[test]
fn an_honest_neighbour_beside_one_that_has_another_file() {
    let mut scene = Scene::new(2);
    let files = scene.files.clone();
    for _ in 0..4 {
        let project = scene.publish(LARGE);
        scene.nodes[1].get(&project.file());
        scene.nodes[1].settle();
        scene.refuse(&project);
        let liar = Liar::near(scene.node(), gives_another(&files));
        let told = told_by(&scene, &project, std::slice::from_ref(&liar));
        let answer = scene.get("beside an honest one", &project);
        assert_eq!(answer.cache(), "PEER");
        drop((told, liar));
    }
    assert_honest(&scene);
}

#[test]
fn two_liars_that_agree_against_one_honest_neighbour() {
    let mut scene = Scene::new(2);
    let files = scene.files.clone();
    let project = scene.publish(LARGE);
    scene.nodes[1].get(&project.file());
    scene.nodes[1].settle();
    scene.refuse(&project);
    let liars =
        [Liar::near(scene.node(), gives_another(&files)), Liar::near(scene.node(), gives_another(&files))];
    let _told = told_by(&scene, &project, &liars);
    assert_eq!(scene.get("two against one", &project).cache(), "PEER");
    assert_honest(&scene);
}

/// The node has heard from one that it has it.
#[must_use]
fn told_by_one(scene: &Scene, project: &Project, liar: &Liar) -> Mouth {
    let news = News { sequence: 0, reset: true, added: vec![project.sha256], removed: vec![] };
    let told = liar.open(scene.node().as_peer().0, &Open::News(news).frame()).unwrap();
    until("its news are known", || scene.exchange().peers().holders(&project.sha256).contains(&liar.peer()));
    told
}

/// The node has heard from all of them that they have it, and from the honest one if there is one: it asks them all.
#[must_use]
fn told_by(scene: &Scene, project: &Project, liars: &[Liar]) -> Vec<Mouth> {
    let told = liars.iter().map(|liar| told_by_one(scene, project, liar)).collect();
    let holders = || scene.exchange().peers().holders(&project.sha256);
    if scene.nodes.len() > 1 {
        let honest = scene.nodes[1].as_peer().0;
        until("the honest one's news are known", || holders().contains(&honest));
    }
    told
}

#[test]
fn one_honest_neighbour_among_three_liars_is_enough() {
    let mut scene = Scene::new(2);
    let files = scene.files.clone();
    let project = scene.publish(LARGE);
    scene.nodes[1].get(&project.file());
    scene.nodes[1].settle();
    scene.refuse(&project);
    let spoiled = gives(&files, |_, bytes| spoil(bytes));
    let liars = [
        Liar::near(scene.node(), gives_another(&files)),
        Liar::near(scene.node(), spoiled),
        Liar::near(scene.node(), Manners::new()),
    ];
    let _told = told_by(&scene, &project, &liars);
    assert_eq!(scene.get("three liars", &project).cache(), "PEER");
    assert!(liars[2].strikes(scene.node()) == 0, "silence is no lie");
    assert_honest(&scene);
}

#[test]
fn a_relay_is_not_struck_for_what_it_was_told() {
    let mut scene = Scene::new(3);
    let files = scene.files.clone();
    let project = scene.publish(LARGE);
    // It gives slowly, so that one passes chunks on to the others before it knows what they are.
    let slow = Manners::new().gives(move |mut mouth| {
        let other = other(&files.of(mouth.digest));
        async move {
            mouth.claim(&other).await?;
            loop {
                let (first, count) = mouth.want().await?;
                for n in first..first + count {
                    mouth.chunk(n, chunk_of(&other, n)).await?;
                    async_io::Timer::after(Duration::from_millis(100)).await;
                }
            }
        }
    });
    // Only one of them knows the liar.
    let liar = Liar::near(scene.node(), slow);
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            scene.nodes.iter().map(|node| scope.spawn(|| node.get(&project.file()))).collect();
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body == project.bytes);
        }
    });
    assert_honest(&scene);
    for node in &scene.nodes[1..] {
        let counters = node.exchange().counters();
        let count = |of: &std::sync::atomic::AtomicU64| of.load(std::sync::atomic::Ordering::Relaxed);
        eprintln!("{} bytes were passed on", count(&counters.taken_bytes));
        assert_eq!(count(&counters.wrong_chunks), 0);
    }
    drop(liar);
}

#[test]
fn news_may_be_long_false_or_broken() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let liar = Liar::near(
        scene.node(),
        Manners::new().gives(|mut m| async move { m.last(&Tell::Gone { reason: 0 }.frame()).await }),
    );
    let node = scene.node().as_peer().0;
    let listed = || liar.row(scene.node())["listed"].as_u64().unwrap_or(0) as usize;
    let entries = |from: u32, count: u32| -> Vec<Sha256> {
        (from..from + count).map(|n| Sha256::of(&n.to_be_bytes())).collect()
    };
    // Too many: what is beyond the limit is not kept.
    let first = News { sequence: 0, reset: true, added: entries(0, 2048), removed: vec![] };
    let mut mouth = liar.open(node, &Open::News(first).frame()).unwrap();
    for n in 1..48u32 {
        let more = News { sequence: n.into(), reset: false, added: entries(n * 2048, 2048), removed: vec![] };
        block_on(mouth.say(&more.frame())).unwrap();
    }
    until("it is full", || listed() == 65_536);
    // A gap: nothing of it is believed any more.
    let gap = News { sequence: 99, reset: false, added: entries(0, 1), removed: vec![] };
    block_on(mouth.say(&gap.frame())).unwrap();
    until("it is forgotten", || listed() == 0);
    // The last number there is.
    let last = News { sequence: u64::MAX, reset: true, added: entries(0, 5), removed: vec![] };
    let mut mouth = liar.open(node, &Open::News(last.clone()).frame()).unwrap();
    until("it is taken", || listed() == 5);
    block_on(mouth.say(&News { sequence: 0, ..last }.frame())).unwrap();
    until("it is left", || listed() == 0);
    // False.
    let project = scene.publish(LARGE);
    let told = told_by_one(&scene, &project, &liar);
    assert_eq!(scene.get("false news", &project).cache(), "MISS");
    assert_eq!(liar.strikes(scene.node()), 0, "it may have lost it");
    drop((told, files));
}

#[test]
fn a_storm_of_questions_and_takers() {
    let mut scene = Scene::new(2);
    let files = scene.files.clone();
    let project = scene.publish(LARGE);
    scene.get("at first", &project);
    let liar = Liar::near(scene.node(), gives(&files, |_, _| {}));
    let node = scene.node().as_peer().0;
    let digests = vec![project.sha256.digest(); 64];
    let mut open = Vec::new();
    let begun = Instant::now();
    for n in 0..10_000u32 {
        let words = match n % 4 {
            0 => Open::Ask { digests: digests.clone(), claim: true }.frame(),
            1 => Open::Ask { digests: vec![Sha256::of(&n.to_be_bytes()).digest()], claim: true }.frame(),
            2 => Open::Take { digest: project.sha256.digest() }.frame(),
            // A frame that is begun, and no more.
            _ => vec![0x80, 0x80, 0x04, 1, 2, 3],
        };
        // Nothing is read, and most are dropped at once: what the node refuses is an error here.
        if let Ok(mouth) = liar.open(node, &words)
            && open.len() < 200
        {
            open.push(mouth);
        }
        if begun.elapsed() > Duration::from_secs(6) {
            eprintln!("{n} streams in 6 s");
            break;
        }
    }
    assert_eq!(scene.node().get("/healthz").status, 200);
    // The neighbour gets what it wants all the same.
    let answer = scene.nodes[1].get(&project.file());
    assert!(answer.status == 200 && answer.body == project.bytes);
    let other = scene.publish(LARGE);
    scene.get("in the storm", &other);
    assert_honest(&scene);
}

#[test]
fn a_reader_that_never_reads() {
    let mut scene = Scene::new(2);
    let project = scene.publish(24 * CHUNK);
    scene.get("at first", &project);
    let liar = Liar::near(scene.node(), Manners::new());
    let node = scene.node().as_peer().0;
    let mut wants = Open::Take { digest: project.sha256.digest() }.frame();
    for _ in 0..20 {
        wants.extend(Ask::Want { first: 0, count: 24, insist: true }.frame());
        wants.extend(Ask::Cancel { first: 3, count: 20 }.frame());
    }
    let open: Vec<_> = (0..20).map(|_| liar.open(node, &wants).unwrap()).collect();
    let mut greedy = wants.clone();
    greedy.extend(Ask::Want { first: 0, count: 4096, insist: true }.frame());
    let mut mouth = liar.open(node, &greedy).unwrap();
    // It wants more than there is room for, so it is left.
    assert!(block_on(async {
        let mut sink = vec![0; 64 << 10];
        loop {
            match futures_lite::io::AsyncReadExt::read(&mut mouth.stream, &mut sink).await {
                Ok(0) | Err(_) => break true,
                Ok(_) => {}
            }
        }
    }));
    let answer = scene.nodes[1].get(&project.file());
    assert!(answer.status == 200 && answer.body == project.bytes);
    assert_honest(&scene);
    drop(open);
}

/// Dials of a storm that are cut off after 10 ms, and those that come through.
const HASTE: usize = 100;

/// See [`HASTE`].
const ENTRIES: usize = 60;

#[test]
fn one_that_comes_and_goes_in_a_storm() {
    let mut scene = Scene::new(1);
    let (peer, address) = scene.node().as_peer();
    let liar = Liar::start(Manners::new().offers(|_| Some(Offer::Nothing)));
    let there = |scene: &Scene| scene.node().daemon().rooms().near.as_ref().unwrap().0.peers();
    let known = |scene: &Scene| there(scene).iter().any(|info| info.peer == liar.peer());
    // In haste, whatever comes of it, and each time until it is in.
    let mut entered = 0;
    for n in 0..HASTE + ENTRIES {
        liar.swarm().dial(peer, vec![address.clone()]);
        if n < HASTE {
            std::thread::sleep(Duration::from_millis(10));
        } else {
            until("it is in", || known(&scene));
            entered += 1;
        }
        liar.swarm().disconnect(&peer);
        if n >= HASTE {
            until("it is out again", || !known(&scene));
        }
    }
    assert_eq!((entered, there(&scene).len()), (ENTRIES, 0), "no connection is left of them");
    let rows = scene.node().order(&dpm::daemon::Order::Peers)["peers"].as_array().unwrap().len();
    assert_eq!(rows, 1, "all of them are one peer");
    let project = scene.publish(LARGE);
    assert_eq!(scene.get("after the storm", &project).cache(), "MISS");
    assert_eq!(liar.strikes(scene.node()), 0);
}

#[test]
fn nobody_is_taken_for_another() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let files = Files::default();
    files.add(&project.bytes);
    let liar = Liar::start(gives(&files, |_, bytes| spoil(bytes)));
    let (address, friend) = (liar.address(), PeerId::random());
    let node = Node::with(&[&upstream.url("/simple/")], |config, tuning| {
        config.near.swarm = true;
        config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
        config.near.peers = vec![(friend, address)];
        tuning.hidden = true;
    });
    let (swarm, _) = node.daemon().rooms().near.clone().unwrap();
    until("the dial has failed", || swarm.sought().iter().any(|s| s.peer == friend && s.error.is_some()));
    assert_eq!(node.neighbours(), 0);
    assert_eq!(node.get(&project.file()).cache(), "MISS");
    assert_eq!(liar.taken(), 0);
}

#[test]
fn one_that_dies_in_the_middle_of_a_chunk() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let half = says(&files, |mut mouth, file| async move {
        mouth.claim(&file).await?;
        let (n, _) = mouth.want().await?;
        mouth.tell(Tell::Chunk { n, length: chunk_of(&file, n).len() as u32 }).await?;
        mouth.say(&chunk_of(&file, n)[..100_000]).await?;
        Ok(mouth)
    });
    let project = scene.publish(LARGE);
    let liar = Liar::near(scene.node(), half);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| scene.get("a death", &project));
        until("something is taken", || liar.taken() > 0);
        drop(liar);
        assert_eq!(client.join().unwrap().cache(), "MISS");
    });
}

/// Who has given much that was right is believed: readers get its bytes as they come. When it lies then, a client that has
/// some of them is cut off, and never gets a whole wrong file.
#[test]
fn one_that_has_proved_itself_and_lies_then() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let good = scene.publish(17 * CHUNK);
    let digest = good.sha256.digest();
    let turning = Manners::new().gives(move |mut mouth| {
        let mut file = files.of(mouth.digest).to_vec();
        if mouth.digest != Some(digest) {
            file = other(&file);
        }
        async move {
            mouth.claim(&file).await?;
            mouth.serve(&file, |_, _| {}).await
        }
    });
    let liar = Liar::near(scene.node(), turning);
    assert_eq!(scene.get("at first", &good).cache(), "PEER");
    assert!(scene.exchange().peers().is_proven(&liar.peer()));
    let project = scene.publish(LARGE);
    let answer = attempt("GET", &scene.node().url(&project.file()), &[]).unwrap();
    assert!(answer.broken.is_some() || answer.body == project.bytes, "{}", answer.status);
    assert_eq!(liar.strikes(scene.node()), 1);
    scene.node().settle();
    // And it is not again.
    assert_eq!(scene.get("again", &project).body.len(), project.bytes.len());
    let next = scene.publish(LARGE);
    scene.get("the next one", &next);
}
