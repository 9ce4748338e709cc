//! Machines of one office: what one has pulled the others have from it, whoever has to log in at the registry, and one
//! that lies about it gains nothing.

use dpm::base::{Access, Digest};
use dpm::config::Registry as Configured;
use dpm::wire::near::{News, Open};

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry};
use super::through::{registry, with_login};
use super::tools::{Engine, Tools};
use crate::clients::process::Home;
use crate::support::liar::{Files, Liar, Manners};
use crate::support::{LIMIT, Node, until};

/// Several chunks.
const LARGE: usize = (3 << 20) + 12_345;

/// Nobody listens there.
const NO_INDEX: &str = "http://127.0.0.1:1/simple/";

const ENGINES: [Engine; 2] = [Engine::Podman, Engine::Buildah];

/// A node that comes to these, and knows them.
fn newcomer(others: &[Node], configured: &Configured) -> Node {
    let peers = others.iter().map(Node::as_peer).collect();
    let node = Node::with(&[NO_INDEX], |config, tuning| {
        config.near.swarm = true;
        config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
        config.near.peers = peers;
        config.oci = vec![configured.clone()];
        tuning.hidden = true;
        (tuning.upstream.answer_time, tuning.upstream.stall_time) = (LIMIT, LIMIT);
    });
    until("it knows the others", || node.neighbours() == others.len());
    node
}

/// Pulls an image with an engine, and has the engine forget it.
fn pull(home: &Home, tools: &Tools<'_>, engine: Engine, node: &Node, image: &Image) {
    let reference = format!("{}/team/app:1", node.daemon().address());
    home.run(&mut tools.pull(engine, &reference, None));
    assert_eq!(&tools.unpacked(engine, &reference), image.unpacked(), "{engine:?}");
    tools.forget(engine);
}

/// Machines of one office that pull one image at the same time, with real clients and from a real registry.
#[test]
fn one_fetch_for_an_office() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000, LARGE]);
    origin.push(&tools, &image, "team/app:1");
    let configured = registry(&origin.host());
    let nodes = Node::village_with(3, NO_INDEX, |_, config, _| config.oci = vec![configured.clone()]);
    std::thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let (home, tools, image) = (&home, &tools, &image);
            scope.spawn(move || {
                let (reference, folder) =
                    (format!("{}/team/app:1", node.daemon().address()), format!("machine-{n}"));
                home.run(&mut tools.copy(&reference, &folder, None));
                image.assert_is(&home.path(&folder));
            });
        }
    });
    for digest in image.blobs.keys() {
        assert_eq!(origin.hits("GET", &blob_path("team/app", digest)), 1, "{digest}");
    }
    // A newcomer has it from the others: of the registry it wants to know what the tag means.
    nodes.iter().for_each(Node::settle);
    let asked = origin.door.total();
    let by_skopeo = newcomer(&nodes, &configured);
    let reference = format!("{}/team/app:1", by_skopeo.daemon().address());
    home.run(&mut tools.copy(&reference, "newcomer", None));
    image.assert_is(&home.path("newcomer"));
    let answer = by_skopeo.get(&blob_path("team/app", image.largest().0));
    assert_eq!(answer.cache(), "HIT");
    assert_eq!(origin.door.total() - asked, 1, "one HEAD");
    for (n, engine) in ENGINES.into_iter().enumerate() {
        let node = newcomer(&nodes, &configured);
        pull(&home, &tools, engine, &node, &image);
        assert_eq!(origin.door.total() - asked, 2 + n, "{engine:?}: one HEAD");
    }
    assert_eq!(origin.hits("GET", &manifest_path("team/app", "1")), 0);
}

#[test]
fn an_office_whose_registry_wants_passwords() {
    from_a_neighbour(Auth::Basic);
}

#[test]
fn an_office_whose_registry_wants_tokens() {
    from_a_neighbour(Auth::Token);
}

/// Of a registry with a login, what its operator calls public, or allows to be given: nothing of it is asked for twice.
fn from_a_neighbour(auth: Auth) {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Registry::start(&home, auth));
    let image = Image::index(1, &[3000, LARGE]);
    origin.push(&tools, &image, "team/app:1");
    let files: Vec<_> =
        origin.tokens.iter().map(|tokens| tokens.upstream.url("/").parse().expect("a URL")).collect();
    for ((private, peers), engine) in [(false, false), (true, true)].into_iter().zip(ENGINES) {
        let what = format!("{auth:?}, private {private}, {engine:?}");
        let configured = with_login(&origin.host(), origin.login());
        let configured = Configured { private, peers, files: files.clone(), ..configured };
        let first = newcomer(&[], &configured);
        let reference = format!("{}/team/app:1", first.daemon().address());
        home.run(&mut tools.copy(&reference, &what, None));
        image.assert_is(&home.path(&what));
        first.settle();
        let pieces =
            image.manifests.iter().map(|(descriptor, _)| manifest_path("team/app", &descriptor.digest));
        let pieces: Vec<_> =
            pieces.chain(image.blobs.keys().map(|digest| blob_path("team/app", digest))).collect();
        let taken = || pieces.iter().map(|path| origin.hits("GET", path)).sum::<usize>();
        let before = taken();
        let second = newcomer(std::slice::from_ref(&first), &configured);
        pull(&home, &tools, engine, &second, &image);
        second.settle();
        assert_eq!(taken(), before, "{what}");
        let layer: Digest = image.first_layer().parse().expect("a digest");
        let stored = second.daemon().rooms().store.find(&layer).expect("the store").expect("a layer");
        assert_eq!(stored.access, Access::Public, "{what}");
    }
}

/// A neighbour that says it has a piece of an image, and gives other bytes for it: the client gets the right ones, from
/// the registry, and it is known for a liar.
#[test]
fn neighbours_that_lie() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[LARGE]);
    origin.put("team/app", "1", &image);
    let (layer, bytes) = image.largest();
    let pieces = [
        (blob_path("team/app", layer), layer, bytes),
        (manifest_path("team/app", &image.root.digest), &image.root.digest, image.root_bytes()),
    ];
    for (path, digest, bytes) in pieces {
        let node = newcomer(&[], &registry(&origin.host()));
        let files = Files::default();
        files.add(bytes);
        let liar = Liar::near(
            &node,
            Manners::new().gives(move |mut mouth| {
                let file = files.of(mouth.digest);
                async move {
                    mouth.claim(&file).await?;
                    mouth.serve(&file, |_, chunk| chunk[0] ^= 1).await
                }
            }),
        );
        let digest: Digest = digest.parse().expect("a digest");
        let added = vec![digest.sha256().expect("a SHA-256")];
        let news = News { sequence: 0, reset: true, added: added.clone(), removed: vec![] };
        let _told = liar.open(node.as_peer().0, &Open::News(news).frame()).expect("a stream");
        let holders = || node.exchange().peers().holders(&added[0]);
        until("its news are known", || holders().contains(&liar.peer()));
        let answer = node.get(&path);
        assert_eq!((answer.status, answer.cache()), (200, "MISS"), "{path}: {}", answer.text());
        assert!(answer.body == bytes, "{path}");
        assert!(liar.taken() > 0, "{path}: it was not asked");
        assert!(liar.strikes(&node) > 0, "{path}: {:#}", liar.row(&node));
        node.settle();
        let again = node.get(&path);
        assert!(again.cache() == "HIT" && again.body == bytes, "{path}");
    }
}
