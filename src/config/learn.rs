//! Which index this machine's package clients use: asked of pip and uv themselves, never assumed.
//!
//! One client's words are taken whole: mixing two clients' lists would ask an index for names that it was never
//! meant to see.

use std::path::Path;

use url::Url;

use super::handover::{Client, Handover};
use super::index::{default_name, is_loopback};
use super::machine::{Machine, RunError};
use super::{Index, Origin, UvToml};

/// The Python indexes that this machine's clients use, first asked first; at least one.
///
/// In this order: `$PIP_INDEX_URL`, `$UV_DEFAULT_INDEX` and `$UV_INDEX_URL`; pip's configuration; uv's; else the
/// default that a client states in its help. A URL that leads to dpm itself (a loopback host with `own_port`, or one
/// that `dpm setup` wrote) is replaced by what `dpm setup` found there before, else passed over.
///
/// Runs each client at most twice, each for at most [`RUN_TIME`](super::RUN_TIME). Blocks.
pub fn learn_pypi(machine: &Machine, own_port: u16) -> Result<Vec<Index>, LearnError> {
    let own = Own::new(machine, own_port);
    let pip = Pip::find(machine);
    let statements = [
        pip_environment(machine, pip.as_ref()),
        uv_environment(machine),
        pip.as_ref().map(Pip::statement).unwrap_or_default(),
        uv_files(machine),
    ];
    let mut statement =
        statements.into_iter().map(|s| own.without_us(s)).find(|s| !s.is_empty()).unwrap_or_default();
    if statement.default.is_none() {
        match client_default(machine) {
            Ok(default) => statement.default = Some(default),
            Err(e) if statement.is_empty() => return Err(e),
            Err(e) => log::warn!("only further indexes are configured, and the default is unknown: {e}"),
        }
    }
    let Statement { before, default, after } = statement;
    let mut indexes: Vec<Index> = Vec::new();
    for Named { url, from } in before.into_iter().chain(default).chain(after) {
        match Index::from_url(default_name(indexes.len()), &url, Origin::Learned(from.clone())) {
            Ok(index) if indexes.iter().any(|has| has.url == index.url) => {}
            Ok(index) => indexes.push(index),
            Err(e) => log::warn!("passing over an index of {from}: {e}"),
        }
    }
    if indexes.is_empty() { Err(LearnError::NoDefault) } else { Ok(indexes) }
}

/// What one client was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Statement {
    /// Asked before the default.
    before: Vec<Named>,
    default: Option<Named>,
    /// Asked after, or with, the default.
    after: Vec<Named>,
}

/// A URL, and which setting of which client it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    url: String,
    from: String,
}

impl Statement {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.default.is_none() && self.after.is_empty()
    }
}

impl Named {
    fn new(url: &str, from: impl Into<String>) -> Self {
        Self { url: url.into(), from: from.into() }
    }

    /// Every URL of a setting that takes several, apart by white space.
    fn all(urls: &str, from: &str) -> Vec<Self> {
        urls.split_whitespace().map(|url| Self::new(url, from)).collect()
    }
}

/// What leads back to us.
struct Own {
    port: u16,
    handovers: Vec<Handover>,
}

impl Own {
    fn new(machine: &Machine, port: u16) -> Self {
        let load = |client| Handover::load(&Handover::path(machine, client)?).ok()?;
        Self { port, handovers: Client::ALL.into_iter().filter_map(load).collect() }
    }

    fn is_us(&self, url: &str) -> bool {
        if self.handovers.iter().any(|handover| handover.index_url == url) {
            return true;
        }
        Url::parse(url).is_ok_and(|url| {
            is_loopback(&url)
                && url.port_or_known_default() == Some(self.port)
                && format!("{}/", url.path()).starts_with("/pypi/simple/")
        })
    }

    fn without_us(&self, mut statement: Statement) -> Statement {
        statement.before.retain(|index| !self.is_us(&index.url));
        statement.after.retain(|index| !self.is_us(&index.url));
        if statement.default.as_ref().is_some_and(|index| self.is_us(&index.url)) {
            let previous = self.handovers.iter().find_map(|handover| {
                let url = handover.previous_index.as_deref().filter(|url| !self.is_us(url))?;
                Some(Named::new(url, format!("{} before dpm setup", handover.file.display())))
            });
            statement.default = previous;
        }
        statement
    }
}

/// A pip that answers, and what it is configured to.
struct Pip {
    /// `key`, value: what `pip config list` says.
    settings: Vec<(String, String)>,
}

impl Pip {
    fn find(machine: &Machine) -> Option<Self> {
        PIPS.iter().find_map(|(program, args)| {
            let path = machine.find(program)?;
            let args: Vec<&str> = args.iter().copied().chain(["config", "list"]).collect();
            let text = answer(machine, &path, &args, PIP_ENV)?;
            Some(Self { settings: text.lines().filter_map(setting).collect() })
        })
    }

    /// The setting that `pip install` would follow: the environment outweighs its own section, that `[global]`.
    fn setting(&self, key: &str) -> Option<(String, &str)> {
        [":env:", "install", "global", "site"].into_iter().find_map(|section| {
            let name = format!("{section}.{key}");
            let (_, value) = self.settings.iter().find(|(has, _)| *has == name)?;
            Some((format!("pip config {name}"), value.trim())).filter(|(_, value)| !value.is_empty())
        })
    }

    fn statement(&self) -> Statement {
        Statement {
            before: Vec::new(),
            default: self.setting("index-url").map(|(from, url)| Named::new(url, from)),
            after: self.extra(),
        }
    }

    fn extra(&self) -> Vec<Named> {
        self.setting("extra-index-url").map(|(from, urls)| Named::all(urls, &from)).unwrap_or_default()
    }
}

fn pip_environment(machine: &Machine, pip: Option<&Pip>) -> Statement {
    let Some(url) = machine.var("PIP_INDEX_URL") else { return Statement::default() };
    let after = match machine.var("PIP_EXTRA_INDEX_URL") {
        Some(urls) => Named::all(urls, "$PIP_EXTRA_INDEX_URL"),
        None => pip.map(Pip::extra).unwrap_or_default(),
    };
    Statement { before: Vec::new(), default: Some(Named::new(url, "$PIP_INDEX_URL")), after }
}

fn uv_environment(machine: &Machine) -> Statement {
    let stated = |name| machine.var(name).map(|url| Named::new(url, format!("${name}")));
    let Some(default) = stated("UV_DEFAULT_INDEX").or_else(|| stated("UV_INDEX_URL")) else {
        return Statement::default();
    };
    let mut before = Vec::new();
    for name in ["UV_INDEX", "UV_EXTRA_INDEX_URL"] {
        let urls = machine.var(name).unwrap_or_default().split_whitespace();
        // `UV_INDEX` may give each a name: NAME=URL.
        let urls = urls.map(|url| match url.split_once('=') {
            Some((name, url)) if !name.contains([':', '/']) => url,
            _ => url,
        });
        before.extend(urls.map(|url| Named::new(url, format!("${name}"))));
    }
    // `[[index]]` in uv's files goes on being asked before a default that the environment names.
    before.extend(uv_files(machine).before);
    Statement { before, default: Some(default), after: Vec::new() }
}

/// The first of uv's files that there is; its user's file goes before the system's.
fn uv_files(machine: &Machine) -> Statement {
    let files = match machine.path("UV_CONFIG_FILE") {
        Some(only) => vec![only],
        None => machine
            .config_home()
            .map(|dir| dir.join("uv/uv.toml"))
            .into_iter()
            .chain(["etc/xdg/uv/uv.toml", "etc/uv/uv.toml"].map(|path| machine.at(path)))
            .collect(),
    };
    files.iter().map(|file| uv_file(file)).find(|statement| !statement.is_empty()).unwrap_or_default()
}

fn uv_file(file: &Path) -> Statement {
    let Ok(text) = std::fs::read_to_string(file) else { return Statement::default() };
    let conf = match UvToml::parse(&text) {
        Ok(conf) => conf,
        Err(e) => {
            log::warn!("passing over {}: {e}", file.display());
            return Statement::default();
        }
    };
    let named = |url: &str| Named::new(url, file.display().to_string());
    Statement {
        before: conf.other_urls().into_iter().map(named).collect(),
        default: conf.default_url().map(named),
        after: Vec::new(),
    }
}

/// The index that a client asks when nobody tells it otherwise, from its help.
fn client_default(machine: &Machine) -> Result<Named, LearnError> {
    let mut any = false;
    let uv: &[(&str, &[&str])] = &[("uv", &["pip"])];
    for (program, args) in PIPS.iter().chain(uv) {
        let Some(path) = machine.find(program) else { continue };
        any = true;
        // Isolated and without files: else pip's help states what is configured as the default.
        let options: &[&str] =
            if *program == "uv" { &["install", "--help"] } else { &["--isolated", "install", "--help"] };
        let args: Vec<&str> = args.iter().chain(options).copied().collect();
        let url = answer(machine, &path, &args, HELP_ENV).and_then(|help| default_in_help(&help));
        if let Some(url) = url {
            return Ok(Named { url, from: format!("{program} {}", args.join(" ")) });
        }
    }
    Err(if any { LearnError::NoDefault } else { LearnError::NoClient })
}

/// The first URL in the help of the option that sets the index, however the lines are wrapped.
fn default_in_help(help: &str) -> Option<String> {
    let lines: Vec<&str> = help.lines().collect();
    let is_option = |line: &str| line.trim_start().starts_with('-');
    let options = lines.iter().enumerate().filter(|(_, line)| {
        is_option(line) && (line.contains("--index-url") || line.contains("--default-index"))
    });
    for (at, line) in options {
        if line.contains("--extra-index-url") {
            continue;
        }
        let rest = lines[at + 1..].iter().take_while(|line| !is_option(line));
        let text: Vec<&str> = [line].into_iter().chain(rest).copied().collect();
        let text = text.join("\n");
        let Some(start) = text.find("https://").or_else(|| text.find("http://")) else { continue };
        let url = &text[start..];
        // Closed by the bracket around it; white space before that is only the wrapping.
        let end = url.find([')', '>', ']', '"', '\''])?;
        let url: String = url[..end].split_whitespace().collect();
        return Some(url).filter(|url| Url::parse(url).is_ok());
    }
    None
}

/// A line of `pip config list`: `section.key='value'`, the value as Python's `repr` writes it.
fn setting(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = value.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other @ ('\\' | '\'' | '"') => other,
                _ => return None,
            }),
            c => text.push(c),
        }
    }
    Some((key.to_owned(), text))
}

fn answer(machine: &Machine, program: &Path, args: &[&str], env: &[(&str, Option<&str>)]) -> Option<String> {
    match machine.run(program, args, env) {
        Ok(text) => Some(text),
        // A shim of a version manager fails like this when its version has no pip.
        Err(RunError::Failed) => None,
        Err(e) => {
            log::warn!("{} {}: {e}", program.display(), args.join(" "));
            None
        }
    }
}

/// Ways to call pip, the usual ones first.
const PIPS: &[(&str, &[&str])] = &[("pip", &[]), ("pip3", &[]), ("python3", &["-m", "pip"])];
const PIP_ENV: &[(&str, Option<&str>)] = &[("PIP_DISABLE_PIP_VERSION_CHECK", Some("1"))];
/// Wide, so that the help is not wrapped, and free of what was configured.
const HELP_ENV: &[(&str, Option<&str>)] = &[
    ("COLUMNS", Some("1000")),
    ("NO_COLOR", Some("1")),
    ("PIP_CONFIG_FILE", Some("/dev/null")),
    ("PIP_INDEX_URL", None),
    ("UV_DEFAULT_INDEX", None),
    ("UV_INDEX_URL", None),
    ("UV_INDEX", None),
    ("UV_EXTRA_INDEX_URL", None),
    ("UV_NO_CONFIG", Some("1")),
];

/// Why no index could be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// Neither pip nor uv is on the machine.
    #[error(
        "there is no pip and no uv on this machine to learn an index from; name one in dpm.toml:\n\n\
         [[pypi]]\nname = \"pypi\"\nurl = \"https://index.example.org/simple/\"\n"
    )]
    NoClient,
    /// There is one, but it states no index.
    #[error(
        "neither pip nor uv says which index it uses; name one in dpm.toml:\n\n\
         [[pypi]]\nname = \"pypi\"\nurl = \"https://index.example.org/simple/\"\n"
    )]
    NoDefault,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PIP_HELP: &str = "Usage:\n  -i, --index-url <url>   Base URL of the index (default\n                          \
        https://my-\n                          index.example.org/simple). This should point\n  --extra-index-url \
        <url>  Extra https://no.example.org/x)\n";
    const UV_HELP: &str = "      --index <INDEX>\n          URLs (https://no.example.org)\n      --default-index \
        <DEFAULT_INDEX>\n          The default (by default: <https://uv.example.org/simple>)\n          [env: \
        UV_DEFAULT_INDEX=]\n";

    struct Fake {
        dir: tempfile::TempDir,
        machine: Machine,
    }

    impl Fake {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().join("home");
            fs::create_dir_all(dir.path().join("bin")).unwrap();
            fs::create_dir_all(&home).unwrap();
            // A fake needs `cat`; no real client is found after ours.
            let tools = dir.path().join("tools");
            fs::create_dir(&tools).unwrap();
            std::os::unix::fs::symlink("/bin/cat", tools.join("cat")).unwrap();
            let path = format!("{}:{}", dir.path().join("bin").display(), tools.display());
            let vars = [("PATH", path), ("HOME", home.display().to_string())];
            let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let machine = Machine { vars, root: dir.path().join("root"), superuser: false };
            Self { dir, machine }
        }

        fn client(self, name: &str, config: &str, help: &str) -> Self {
            let dir = self.dir.path();
            fs::write(dir.join(format!("{name}.config")), config).unwrap();
            fs::write(dir.join(format!("{name}.help")), help).unwrap();
            let base = dir.join(name).display().to_string();
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in\n*'config list') exec cat {base}.config;;\n\
                 '--isolated install --help'|'pip install --help') [ \"$PIP_CONFIG_FILE\" = /dev/null ] && \
                 exec cat {base}.help;;\nesac\nexit 2\n"
            );
            let bin = dir.join("bin").join(name);
            fs::write(&bin, script).unwrap();
            fs::set_permissions(bin, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn var(mut self, name: &str, value: &str) -> Self {
            self.machine.vars.insert(name.into(), value.into());
            self
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn handover(self, client: Client, previous_index: Option<&str>) -> Self {
            let path = Handover::path(&self.machine, client).unwrap();
            Handover {
                client,
                file: "/h/pip.conf".into(),
                index_url: "http://dpm.example.org/pypi/simple/".into(),
                trusted_host: None,
                wrote_sha256: String::new(),
                previous: None,
                previous_index: previous_index.map(str::to_owned),
                mode: None,
                made_dirs: Vec::new(),
                edited: false,
            }
            .save(&path)
            .unwrap();
            self
        }

        #[track_caller]
        fn check(self, want: &[(&str, &str)]) {
            let learned = learn_pypi(&self.machine, 3142).unwrap();
            let dir = format!("{}/", self.dir.path().display());
            let learned: Vec<(String, String)> =
                learned.iter().map(|i| (i.url.to_string(), i.origin.to_string().replace(&dir, ""))).collect();
            let want: Vec<(String, String)> = want.iter().map(|(u, f)| ((*u).into(), (*f).into())).collect();
            assert_eq!(learned, want);
        }
    }

    const DEFAULT: (&str, &str) = ("https://my-index.example.org/simple/", "pip --isolated install --help");
    const UV_DEFAULT: (&str, &str) = ("https://uv.example.org/simple/", "uv pip install --help");
    const US: &str = "global.index-url='http://localhost:3142/pypi/simple'";

    #[test]
    fn no_client() {
        assert_eq!(learn_pypi(&Fake::new().machine, 3142), Err(LearnError::NoClient));
        let broken = Fake::new().client("pip", "", "no URL here");
        assert_eq!(learn_pypi(&broken.machine, 3142), Err(LearnError::NoDefault));
    }

    #[test]
    fn from_help() {
        Fake::new().client("pip", "", PIP_HELP).check(&[DEFAULT]);
        Fake::new().client("uv", "", UV_HELP).check(&[UV_DEFAULT]);
        Fake::new().client("pip", "", "").client("uv", "", UV_HELP).check(&[UV_DEFAULT]);
    }

    #[test]
    fn from_pip() {
        let config = "global.extra-index-url='\\nhttps://b.example.org/x\\nhttps://a.example.org/s'\n\
                      global.index-url='https://a.example.org/s'\n:env:.cert='/x'\n";
        let from = "pip config global.index-url";
        let extra = "pip config global.extra-index-url";
        let pip = || Fake::new().client("pip", config, PIP_HELP);
        pip().check(&[("https://a.example.org/s/", from), ("https://b.example.org/x/", extra)]);
        pip().var("PIP_INDEX_URL", "https://e.example.org/s").check(&[
            ("https://e.example.org/s/", "$PIP_INDEX_URL"),
            ("https://b.example.org/x/", extra),
            ("https://a.example.org/s/", extra),
        ]);
        pip()
            .var("UV_DEFAULT_INDEX", "https://e.example.org/s")
            .check(&[("https://e.example.org/s/", "$UV_DEFAULT_INDEX")]);
        let own_section =
            "install.index-url='https://i.example.org/'\nglobal.index-url='https://a.example.org/'";
        Fake::new()
            .client("pip3", own_section, "")
            .check(&[("https://i.example.org/", "pip config install.index-url")]);
        let only_extra = "global.extra-index-url='file:///wheels https://b.example.org/'";
        Fake::new().client("pip", only_extra, PIP_HELP).check(&[DEFAULT, ("https://b.example.org/", extra)]);
    }

    #[test]
    fn from_uv() {
        let conf = "[[index]]\nurl = 'https://a.example.org/'\n[[index]]\nurl = 'https://d.example.org'\ndefault = true";
        let from = "home/.config/uv/uv.toml";
        let want = [("https://a.example.org/", from), ("https://d.example.org/", from)];
        let uv = || Fake::new().client("pip", "", PIP_HELP).file(from, conf);
        uv().check(&want);
        uv().var("UV_INDEX", "corp=https://c.example.org/")
            .var("UV_INDEX_URL", "https://e.example.org/")
            .check(&[
                ("https://c.example.org/", "$UV_INDEX"),
                want[0],
                ("https://e.example.org/", "$UV_INDEX_URL"),
            ]);
        let system = "root/etc/uv/uv.toml";
        Fake::new()
            .file(system, "[pip]\nindex-url = 'https://p.example.org/'")
            .check(&[("https://p.example.org/", system)]);
    }

    #[test]
    fn never_from_ourselves() {
        let pip = |config| Fake::new().client("pip", config, PIP_HELP);
        pip(US).check(&[DEFAULT]);
        pip(US)
            .file("home/.config/uv/uv.toml", "index-url = 'https://u.example.org'")
            .check(&[("https://u.example.org/", "home/.config/uv/uv.toml")]);
        let before = Some("https://old.example.org/simple");
        let old = ("https://old.example.org/simple/", "/h/pip.conf before dpm setup");
        pip(US).handover(Client::Pip, before).check(&[old]);
        let named = "global.index-url='http://dpm.example.org/pypi/simple/'";
        pip(named).handover(Client::Pip, before).check(&[old]);
        pip(named).handover(Client::Pip, None).check(&[DEFAULT]);
        pip(named).handover(Client::Pip, Some("http://127.0.0.1:3142/pypi/simple/")).check(&[DEFAULT]);
        // Another server on this machine is no dpm.
        pip("global.index-url='http://localhost:3141/root/pypi/'")
            .check(&[("http://localhost:3141/root/pypi/", "pip config global.index-url")]);
    }

    #[test]
    fn settings_as_python_writes_them() {
        let cases = [
            ("global.a='b'", Some(("global.a", "b"))),
            (r#"global.a="it's""#, Some(("global.a", "it's"))),
            (r"global.a='\nb\tc\\'", Some(("global.a", "\nb\tc\\"))),
            ("global.a=b", None),
            ("global.a='", None),
            ("nothing", None),
        ];
        for (line, want) in cases {
            assert_eq!(setting(line), want.map(|(k, v)| (k.to_owned(), v.to_owned())), "{line}");
        }
    }
}
