//! containerd itself, pulling by the `hosts.toml` that `dpm setup` writes.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry};
use super::setup::{kept_in, settings};
use super::tools::Tools;
use crate::clients::process::{Dpm, Home, until};

/// A containerd of its own. Ended when dropped.
struct Containerd<'a> {
    tools: &'a Tools<'a>,
    child: Child,
}

impl<'a> Containerd<'a> {
    /// Starts one that keeps everything in its home: what it would do to the machine (`/opt`, CNI, shims) is left out.
    fn start(tools: &'a Tools<'a>) -> Self {
        let path = |name: &str| tools.home.path(&format!("containerd/{name}")).display().to_string();
        tools.home.write(
            "containerd/config.toml",
            &format!(
                "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.restart\", \
                 \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{}\"\n",
                path("root"),
                path("state"),
                path("socket")
            ),
        );
        let log = tools.home.path("containerd/log");
        let file = File::create(&log).expect("a log");
        let mut server = tools.command("containerd");
        server.arg("--config").arg(path("config.toml")).stdin(Stdio::null()).process_group(0);
        server.stdout(file.try_clone().expect("a log")).stderr(file);
        let mut child = server.spawn().expect("containerd starts");
        until("containerd listens", || {
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("it ended with {status}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            UnixStream::connect(path("socket")).ok()
        });
        Self { tools, child }
    }

    /// An order. It reaches loopback and nothing else: when a mirror fails it goes to the registry itself.
    fn ctr(&self, words: &[&str]) -> Command {
        let mut ctr = kept_in(self.tools.command("ctr"));
        ctr.arg("--address").arg(self.tools.home.path("containerd/socket")).args(words);
        ctr
    }

    fn says(&self, words: &[&str]) -> String {
        self.tools.home.run(&mut self.ctr(words))
    }

    /// What it has stored, by digest.
    fn content(&self) -> Vec<String> {
        let mut digests: Vec<_> =
            self.says(&["content", "ls", "--quiet"]).lines().map(str::to_owned).collect();
        digests.sort();
        digests
    }

    /// Forgets an image and all of it.
    fn forget(&self, reference: &str) {
        self.says(&["images", "rm", "--sync", reference]);
        assert_eq!(self.content(), Vec::<String>::new());
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // Fails when it is gone already, which is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Every digest of these, in order.
fn digests(image: &Image) -> Vec<String> {
    let manifests = image.manifests.iter().map(|(descriptor, _)| descriptor.digest.clone());
    let mut all: Vec<_> = manifests.chain(image.blobs.keys().cloned()).collect();
    all.sort();
    all
}

#[test]
fn containerd_without_naming_dpm() {
    let home = Home::bare();
    let (tools, mut registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let (image, other) = (Image::index(1, &[3000, 200_000]), Image::index(2, &[5000]));
    registry.push(&tools, &image, "library/x:1");
    // Another registry that has another image by the same name: only `?ns=` tells which is meant.
    let corp = FakeRegistry::start();
    corp.put("library/x", "1", &other);
    let also = format!(
        "[[oci]]\nname = \"corp\"\nurl = \"http://{}\"\nhosts = [\"corp.example.org\"]\n",
        corp.host()
    );
    home.write("dpm.toml", &format!("{}{also}", settings(&registry)));
    let config = home.path("dpm.toml").display().to_string();
    let dpm = Dpm::serve(&home, &["--config", &config]);
    let file: PathBuf = home.path("certs.d/_default/hosts.toml");
    let named = ["setup", "containerd", "--file", file.to_str().expect("UTF-8"), "--config", &config];
    home.run(home.dpm().args(named).args(["--url", &dpm.url()]));
    let certs = home.path("certs.d").display().to_string();
    let containerd = Containerd::start(&tools);
    let fetch = ["content", "fetch", "--hosts-dir", &certs];
    let pull = ["images", "pull", "--hosts-dir", &certs, "--snapshotter", "native"];

    // Cold, and all of it.
    let [hub, corps] = ["docker.io/library/x:1", "corp.example.org/library/x:1"];
    for (reference, image) in [(hub, &image), (corps, &other)] {
        containerd.says(&[&fetch[..], &["--all-platforms", reference]].concat());
        assert_eq!(containerd.content(), digests(image), "{reference}");
        for (descriptor, bytes) in &image.manifests {
            // Manifests are text: this is the whole of one.
            let got = containerd.says(&["content", "get", &descriptor.digest]);
            assert!(got.as_bytes() == bytes, "{reference}: {got}");
        }
        containerd.forget(reference);
    }
    for digest in image.blobs.keys() {
        assert_eq!(registry.hits("GET", &blob_path("library/x", digest)), 1, "{digest}");
    }
    // It asks what the tag means first, and dpm does the same.
    let tag = manifest_path("library/x", "1");
    assert_eq!((registry.hits("HEAD", &tag), registry.hits("GET", &tag)), (1, 0));

    // Warm, unpacked, and without the registry.
    registry.kill();
    let asked = registry.door.total();
    containerd.says(&[&pull[..], &[hub]].concat());
    let snapshots = containerd.says(&["snapshots", "--snapshotter", "native", "ls"]);
    assert!(snapshots.contains(&image.unpacked().layers[0]), "{snapshots}");
    assert!(containerd.content().contains(&image.first_layer()));
    assert_eq!(registry.door.total(), asked);

    // A registry that nobody configured is not dialled for it, and its own way is shut here.
    let (ended, text) =
        home.try_run(&mut containerd.ctr(&[&fetch[..], &["other.example.org/library/x:1"]].concat()));
    assert!(!ended.success(), "{text}");
    assert_eq!(registry.door.total(), asked);
    home.run(home.dpm().args(["setup", "containerd", "--undo"]));
    assert!(!file.exists());
}
