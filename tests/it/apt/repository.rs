//! A small apt repository, and an apt-get that knows nothing else.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use dpm::base::Sha256;

use crate::clients::process::{Home, prefixed};

/// What the repository has: paths below its root, and their bytes.
pub struct Repository {
    pub files: Vec<(String, Vec<u8>)>,
    /// The path of the package.
    pub package: String,
    /// The path of the list of packages, by its digest.
    pub by_hash: String,
}

impl Repository {
    /// One suite, `test`, with one package, `demo`.
    pub fn new() -> Self {
        // apt holds a package against its digest and does not look into it.
        let deb = crate::support::random_bytes(7, 300_000);
        let package = "pool/main/d/demo/demo_1.0+x_all.deb".to_owned();
        let packages = format!(
            "Package: demo\nVersion: 1.0+x\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
             Description: nothing\nFilename: {package}\nSize: {}\nSHA256: {}\n\n",
            deb.len(),
            Sha256::of(&deb)
        )
        .into_bytes();
        let hash = Sha256::of(&packages);
        let list = "main/binary-amd64/Packages";
        let release = format!(
            "Suite: test\nCodename: test\nArchitectures: amd64\nComponents: main\nAcquire-By-Hash: yes\n\
             Date: Sun, 06 Nov 1994 08:49:37 UTC\nSHA256:\n {hash} {} {list}\n",
            packages.len()
        );
        let by_hash = format!("dists/test/main/binary-amd64/by-hash/SHA256/{hash}");
        let files = vec![
            ("dists/test/Release".to_owned(), release.into_bytes()),
            (format!("dists/test/{list}"), packages.clone()),
            (by_hash.clone(), packages),
            (package.clone(), deb),
        ];
        Self { files, package, by_hash }
    }

    pub fn bytes(&self, path: &str) -> &[u8] {
        &self.files.iter().find(|(has, _)| has == path).expect("a file").1
    }

    /// Writes it below a folder.
    pub fn write(&self, folder: &Path) {
        for (path, bytes) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
    }
}

/// An apt with folders, sources and a proxy of its own.
pub struct Apt<'a> {
    home: &'a Home,
    name: &'a str,
    enter: Vec<OsString>,
}

impl<'a> Apt<'a> {
    /// `source` is where the repository is; `enter` are the words before each command.
    pub fn new(home: &'a Home, name: &'a str, source: &str, proxy: &str, enter: Vec<OsString>) -> Self {
        for folder in
            ["state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "log"]
        {
            std::fs::create_dir_all(home.path(&format!("{name}/{folder}"))).expect("a folder");
        }
        home.write(&format!("{name}/etc/sources.list"), &format!("deb [trusted=yes] {source} test main\n"));
        home.write(&format!("{name}/status"), "");
        let root = home.path(name);
        let root = root.display();
        // Nothing of this machine's own configuration is read: that is below `Dir` too.
        let conf = format!(
            "Dir \"{root}/\";\nDir::Etc \"etc\";\nDir::State \"state\";\nDir::State::status \"{root}/status\";\n\
             Dir::Cache \"cache\";\nDir::Log \"log\";\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n\
             Acquire::http::Proxy \"{proxy}\";\n"
        );
        home.write(&format!("{name}/apt.conf"), &conf);
        Self { home, name, enter }
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.home.path(self.name));
        command.env("APT_CONFIG", self.home.path(&format!("{}/apt.conf", self.name))).env("LC_ALL", "C");
        for name in ["http_proxy", "no_proxy", "NO_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        if self.enter.is_empty() { command } else { prefixed(&self.enter, &command) }
    }

    /// Runs apt-get to its good end.
    pub fn run(&self, words: &[&str]) -> String {
        self.home.run(&mut self.command("apt-get", words))
    }

    /// `apt-get update`, which ends well where an index could not be had: here it must be had.
    pub fn update(&self) -> String {
        let text = self.run(&["update", "-o", "APT::Update::Error-Mode=any"]);
        assert!(!text.contains("W: ") && !text.contains("Err:"), "{text}");
        text
    }

    /// What apt says of one address that it cannot get.
    pub fn fails(&self, url: &str) -> String {
        let (status, text) =
            self.home.try_run(&mut self.command("/usr/lib/apt/apt-helper", &["download-file", url, "got"]));
        assert!(!status.success(), "{text}");
        text
    }

    /// A file that it wrote where it stands.
    pub fn got(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.home.path(&format!("{}/{name}", self.name))).expect("a file")
    }
}
