//! The same as pip sees it: the real client, with its locked hashes, through a node that has such a neighbour. What it
//! installs is right in every case, and who was caught stands in `dpm peers`.

use super::*;
use crate::clients::process::{Home, counterpart};
use crate::support::{installable, process};

/// What can be held against a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It lied, and that is proved.
    Struck,
    /// It promised and did not give.
    LetDown,
    /// What it says is no protocol, which a broken line does too.
    Left,
}

/// A package that pip can install, which only the upstream has.
fn publish(scene: &mut Scene) -> Project {
    scene.count += 1;
    let name = format!("p{}", scene.count);
    let project = Project::of(&name, installable(&name, &[], LARGE)).publish(&scene.upstream);
    scene.files.add(&project.bytes);
    project
}

/// Installs it as a lock says it; every file of it is as it was published.
#[track_caller]
fn install(home: &Home, node: &Node, what: &str, project: &Project) {
    let name = &project.name;
    home.write("lock.txt", &format!("{name}==1.0 --hash=sha256:{}\n", project.sha256));
    let mut pip = home.client(counterpart("pip", "pip"));
    pip.args(["install", "--no-cache-dir", "--no-compile", "--quiet", "--require-hashes", "--no-deps"]);
    pip.args(["--only-binary", ":all:", "--target", name, "-r", "lock.txt"]);
    let (status, text) = home.try_run(pip.args(["--index-url", &node.url("/pypi/simple/")]));
    assert!(status.success(), "{what}: {text}");
    let data = std::fs::read(home.path(name).join(name).join("data")).expect("its data");
    assert!(data == crate::support::bytes(LARGE), "{what}: other bytes are installed");
    assert!(home.path(name).join(format!("{name}-1.0.dist-info/METADATA")).exists(), "{what}");
}

/// Claims all of a file, waits to be asked for a chunk, and answers with what `give` makes of it.
fn answers<F>(
    files: &Files,
    give: impl Fn(Mouth, u32, Vec<u8>) -> F + Clone + Send + Sync + 'static,
) -> Manners
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let files = files.clone();
    Manners::new().gives(move |mut mouth| {
        let (file, give) = (files.of(mouth.digest), give.clone());
        async move {
            mouth.claim(&file).await?;
            let (n, _) = mouth.want().await?;
            give(mouth, n, chunk_of(&file, n).to_vec()).await
        }
    })
}

#[test]
fn pip_installs_beside_every_manner_of_liar() {
    let mut scene = Scene::new(1);
    let files = scene.files.clone();
    let home = Home::bare();
    let trickle = |mut mouth: Mouth, n, bytes: Vec<u8>| async move {
        mouth.tell(Tell::Chunk { n, length: bytes.len() as u32 }).await?;
        for some in bytes.chunks(100) {
            mouth.say(some).await?;
            async_io::Timer::after(Duration::from_millis(100)).await;
        }
        mouth.silence().await
    };
    let flood = |mut mouth: Mouth, n, bytes: Vec<u8>| async move {
        // Until it is shown the door.
        loop {
            mouth.chunk(n, &bytes).await?;
            mouth.chunk(u32::MAX, &bytes).await?;
        }
    };
    let cases = [
        ("other bytes", Verdict::Struck, gives(&files, |_, bytes| spoil(bytes))),
        ("a layout of another file", Verdict::Struck, gives_another(&files)),
        ("silence", Verdict::LetDown, Manners::new()),
        ("1 KB/s", Verdict::LetDown, answers(&files, trickle)),
        (
            "a frame that is cut",
            Verdict::Left,
            answers(&files, |mut mouth, _, _| async move { mouth.last(&[100, 1, 2, 3]).await }),
        ),
        (
            "a chunk that is cut",
            Verdict::Left,
            answers(&files, |mut mouth, n, bytes| async move {
                mouth.tell(Tell::Chunk { n, length: bytes.len() as u32 }).await?;
                mouth.last(&bytes[..bytes.len() / 2]).await
            }),
        ),
        ("a flood", Verdict::Left, answers(&files, flood)),
    ];
    for (what, verdict, manners) in cases {
        let liar = Liar::near(scene.node(), manners);
        let project = publish(&mut scene);
        let told = told_by_one(&scene, &project, &liar);
        install(&home, scene.node(), what, &project);
        assert!(liar.taken() > 0, "{what}: it had its say");
        let row = liar.row(scene.node());
        let (strikes, let_downs) = (row["strikes"].as_u64(), row["let_downs"].as_u64());
        match verdict {
            Verdict::Struck => assert!(strikes > Some(0), "{what}: {row:#}"),
            Verdict::LetDown => {
                assert_eq!((strikes, let_downs > Some(0)), (Some(0), true), "{what}: {row:#}")
            }
            Verdict::Left => assert_eq!(strikes, Some(0), "{what}: {row:#}"),
        }
        assert_eq!(caught(scene.node(), &liar.peer()), verdict == Verdict::Struck, "{what}");
        drop(told);
    }
}

/// Whether people read in `dpm peers` that it was caught, and at what.
#[track_caller]
fn caught(node: &Node, peer: &PeerId) -> bool {
    let said = process::said(&["peers".as_ref(), "--data".as_ref(), node.data().as_os_str()]);
    let mut lines = said.lines().skip_while(|line| *line != peer.to_string()).skip(1);
    let mut own = lines.by_ref().take_while(|line| line.starts_with(' '));
    assert!(own.by_ref().any(|line| line.contains("round trip")), "{peer} has a row: {said}");
    let caught = own.next().is_some_and(|line| line.starts_with("  caught lying "));
    if caught {
        assert!(own.next().is_some_and(|line| line.trim().len() > 5), "it is said of what: {said}");
    }
    caught
}
