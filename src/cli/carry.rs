//! What goes by CID: `dpm cid`, `dpm get`, `dpm export`, `dpm import`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use argh::FromArgs;
use serde_json::{Value, json};

use crate::base::{Algorithm, Cid, Digest, Hasher, parse_cid_text, sha256_of_cid};
use crate::daemon::{Choice, Order};
use crate::unixfs::LayoutBuilder;

use super::orders::{self, Streams};
use super::show;
use super::sink::Sink;

/// Say the CID, size and SHA-256 of files, without storing them. The CID is that of unixfs-v1-2025 (1 MiB chunks, raw
/// leaves): what any dpm, and IPFS tools that are told so, make of the same bytes.
#[derive(FromArgs)]
#[argh(subcommand, name = "cid")]
pub(super) struct CidCommand {
    /// files, `-` for what comes in, or for what is stored: its URL at dpm, its digest (sha256:…), a CID
    #[argh(positional)]
    what: Vec<String>,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Get a file from the store or, through the running node, from peers or the upstream; it is written whole and verified
/// or not at all. A package URL means one file: of several, the wheel for any machine, else the source archive; or name
/// one: pkg:pypi/NAME@VERSION?file_name=FILE
#[derive(FromArgs)]
#[argh(subcommand, name = "get")]
pub(super) struct Get {
    /// pkg:pypi/NAME@VERSION, a CID, a digest (sha256:…), or a file's URL at dpm
    #[argh(positional)]
    what: String,
    /// where to write it, `-` for the terminal (default: its own name, here)
    #[argh(option, short = 'o', arg_name = "file")]
    output: Option<PathBuf>,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Write what is stored into one CAR file, to carry it where there is no network: `dpm import` takes it in, and any IPFS
/// node reads it. With the files go the index pages of their projects, so that installing works there too. What came
/// from private indexes stays here unless --private.
#[derive(FromArgs)]
#[argh(subcommand, name = "export")]
pub(super) struct Export {
    /// a project's name, pkg:pypi/NAME@VERSION, an image, a URL of dpm, a digest (sha256:…) or a CID; or --all, or
    /// --pinned
    #[argh(positional)]
    what: Option<String>,
    /// everything
    #[argh(switch)]
    all: bool,
    /// what `dpm pin` keeps
    #[argh(switch)]
    pinned: bool,
    /// the file to write, `-` for the terminal
    #[argh(option, short = 'o', arg_name = "file")]
    output: PathBuf,
    /// take along what came from private indexes: whoever gets the file can read it
    #[argh(switch)]
    private: bool,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Take in what `dpm export` wrote. Each block and each file is verified; what is damaged is named and left out, and
/// running it again takes up an import that broke off. Exits with 1 when something was left out.
///
/// Files prove themselves by their hashes. Index pages do not: with --names you trust whoever made the file to say what
/// a name means, until an index can be asked. An office without a network needs them, served by `dpm serve --offline`.
#[derive(FromArgs)]
#[argh(subcommand, name = "import")]
pub(super) struct Import {
    /// the CAR file, `-` for what comes in
    #[argh(positional)]
    file: PathBuf,
    /// take over index pages, too; never in the place of fresher ones, nor for names of another index
    #[argh(switch)]
    names: bool,
    /// the configuration file of the node
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// the data folder of the node
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Hashes bytes into what names them.
struct Naming {
    sha256: Hasher,
    layout: LayoutBuilder,
    size: u64,
}

impl Naming {
    fn new() -> Self {
        Self { sha256: Hasher::new(Algorithm::Sha256), layout: LayoutBuilder::default(), size: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.layout.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn finish(self) -> (Cid, Digest, u64) {
        (self.layout.finish().tree().0, self.sha256.finish(), self.size)
    }
}

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

pub(super) fn cid(args: CidCommand) -> Result<u8> {
    if args.what.is_empty() {
        bail!("name files, `-`, or what is stored: its URL at dpm, its digest or a CID");
    }
    let mut rows = Vec::new();
    for what in &args.what {
        let row = match what.as_str() {
            "-" => named("-", io::stdin().lock())?,
            path if Path::new(path).exists() => {
                named(path, File::open(path).with_context(|| format!("open {path}"))?)
                    .with_context(|| format!("read {path}"))?
            }
            _ => stored(what, &args)?,
        };
        rows.push(row);
    }
    if args.json {
        show::json(&rows.into());
    } else {
        for row in &rows {
            let [cid, digest, name] = ["cid", "digest", "name"].map(|key| show::text(&row[key]));
            println!("{cid}  {:>12}  {digest}  {name}", row["size"]);
        }
    }
    Ok(0)
}

fn named(name: &str, mut input: impl Read) -> Result<Value> {
    let mut naming = Naming::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => naming.update(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let (cid, digest, size) = naming.finish();
    Ok(json!({"name": name, "cid": cid.to_string(), "size": size, "digest": digest.to_string()}))
}

/// What the store says of something that is no file here.
fn stored(what: &str, args: &CidCommand) -> Result<Value> {
    let named = what.contains("://") || what.parse::<Digest>().is_ok() || parse_cid_text(what).is_ok();
    if !named && !what.starts_with("/pypi/") {
        bail!("there is no file {what}");
    }
    let streams = Streams { input: Box::new(io::empty()), output: &mut io::sink() };
    let order = Order::Why(what.to_owned());
    let why = orders::carry_out(&order, args.config.clone(), args.data.clone(), true, streams)?;
    match (why["kind"].as_str(), why["stored"].as_bool()) {
        (Some("artifact"), Some(true)) => {
            let [name, cid, size, digest] = ["filename", "cid", "size", "digest"].map(|key| why[key].clone());
            Ok(json!({"name": name, "cid": cid, "size": size, "digest": digest}))
        }
        (Some("page"), _) => bail!("{what} is a page of an index, which changes and has no CID"),
        _ => bail!("{what} is not stored; `dpm get` fetches"),
    }
}

pub(super) fn get(args: Get) -> Result<u8> {
    let to_terminal = args.output.as_deref() == Some(Path::new("-"));
    let folder = args.output.as_deref().and_then(Path::parent).filter(|p| !p.as_os_str().is_empty());
    let mut sink = match to_terminal {
        true => Sink::Terminal(io::stdout()),
        false => Sink::file(folder.unwrap_or(Path::new(".")))?,
    };
    let mut naming = Naming::new();
    let mut output = Tee(&mut sink, &mut naming);
    let order = Order::Get(args.what.clone());
    let streams = Streams { input: Box::new(io::empty()), output: &mut output };
    let mut outcome = orders::carry_out(&order, args.config, args.data, args.json, streams)?;
    let (cid, digest, size) = naming.finish();
    verify(&args.what, &outcome, &cid, &digest)?;
    let path = match (args.output, to_terminal) {
        (_, true) => None,
        (Some(path), _) => Some(path),
        (None, _) => {
            let name = outcome["filename"].as_str().and_then(own_name).map(PathBuf::from);
            let path = name.unwrap_or_else(|| cid.to_string().into());
            if path.exists() {
                bail!("{} is there already; -o writes it elsewhere, or over it", path.display());
            }
            Some(path)
        }
    };
    if let Some(path) = &path {
        sink.keep(path)?;
        outcome["file"] = path.display().to_string().into();
    }
    outcome["cid"] = cid.to_string().into();
    outcome["digest"] = digest.to_string().into();
    match (args.json, path) {
        (true, _) if to_terminal => eprintln!("{outcome:#}"),
        (true, _) => show::json(&outcome),
        (false, Some(path)) => {
            println!(
                "{}  {}  from the {}",
                path.display(),
                show::bytes(&size.into()),
                show::text(&outcome["from"])
            );
            println!("{cid}\n{digest}");
        }
        (false, None) => {}
    }
    Ok(0)
}

/// Holds the bytes against what was asked for, and else against what the node says of them.
fn verify(what: &str, outcome: &Value, cid: &Cid, digest: &Digest) -> Result<()> {
    let path = what.split_once("/ipfs/").map_or(what, |(_, cid)| cid);
    let asked = path.strip_prefix("ipfs://").unwrap_or(path).trim_end_matches('/');
    if let Ok(asked) = parse_cid_text(asked) {
        let same = asked.hash() == cid.hash() || sha256_of_cid(&asked) == digest.sha256();
        // A CID of another layout is for whoever fetched it to verify, and so is one that names by another hash.
        if !same && outcome["from"] == "store" {
            bail!("what the store has is not {asked}: run `dpm verify`");
        }
        return Ok(());
    }
    let wanted = what.parse::<Digest>().ok().filter(|d| d.sha256().is_some());
    let wanted = wanted.or_else(|| outcome["digest"].as_str()?.parse().ok());
    match wanted {
        Some(wanted) if wanted != *digest => {
            bail!("what came has the digest {digest}, not {wanted}: run `dpm verify`")
        }
        _ => Ok(()),
    }
}

/// A file's own name, if it is one that may be written here.
fn own_name(name: &str) -> Option<&str> {
    let harmless = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control());
    harmless.then_some(name)
}

pub(super) fn export(args: Export) -> Result<u8> {
    let choice = match (args.what, args.all, args.pinned) {
        (Some(what), false, false) => Choice::What(what),
        (None, true, false) => Choice::All,
        (None, false, true) => Choice::Pinned,
        _ => bail!("name one: what to export, --all, or --pinned"),
    };
    let to_terminal = args.output == Path::new("-");
    if to_terminal && io::stdout().is_terminal() {
        bail!("a CAR file is nothing for a terminal: -o names a file");
    }
    let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut sink = if to_terminal { Sink::Terminal(io::stdout()) } else { Sink::file(folder)? };
    let order = Order::Export { choice, private: args.private };
    let streams = Streams { input: Box::new(io::empty()), output: &mut sink };
    let mut outcome = orders::carry_out(&order, args.config, args.data, args.json, streams)?;
    if !to_terminal {
        sink.keep(&args.output)?;
        outcome["file"] = args.output.display().to_string().into();
    }
    let missing = outcome["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    match (args.json, to_terminal) {
        (true, true) => eprintln!("{outcome:#}"),
        (true, false) => show::json(&outcome),
        (false, true) => {}
        (false, false) => {
            println!(
                "{}  {}: {} artifacts and {} index pages",
                args.output.display(),
                show::bytes(&outcome["bytes"]),
                outcome["artifacts"],
                outcome["pages"]
            );
            println!("{}", show::text(&outcome["cid"]));
            if outcome["kept_back"].as_u64().is_some_and(|n| n > 0) {
                println!(
                    "{} from private indexes stay here; --private takes them along",
                    outcome["kept_back"]
                );
            }
        }
    }
    if !args.json {
        name_each(missing, "left out", outcome["missing_count"].as_u64().unwrap_or_default());
    }
    Ok(u8::from(!missing.is_empty()))
}

pub(super) fn import(args: Import) -> Result<u8> {
    let input: Box<dyn Read + Send> = match args.file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?),
    };
    let order = Order::Import { names: args.names };
    let streams = Streams { input, output: &mut io::sink() };
    let outcome = orders::carry_out(&order, args.config, args.data, args.json, streams)?;
    let number = |key: &str| outcome[key].as_u64().unwrap_or_default();
    let refused = outcome["refused"].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json {
        show::json(&outcome);
    } else {
        println!(
            "took in {} artifacts, {}; {} were here already",
            number("artifacts"),
            show::bytes(&outcome["artifact_bytes"]),
            number("known")
        );
        if args.names {
            println!(
                "took over {} index pages, {} were known as fresh or fresher; until an index confirms them, they are \
                 the word of whoever made the file",
                number("pages"),
                number("pages_known")
            );
        } else if number("pages_passed") > 0 {
            println!(
                "{} index pages were left out: nothing proves them; --names takes them over if you trust whoever \
                 made the file as you trust your index",
                number("pages_passed")
            );
        }
        let unusable = outcome["pages_unusable"].as_array().map(Vec::as_slice).unwrap_or_default();
        name_each(unusable, "page left out", number("pages_unusable_count"));
        name_each(refused, "refused", number("refused_count"));
        if let Some(broken) = outcome["broken"].as_str() {
            eprintln!("ended early: {broken}");
        }
    }
    Ok(u8::from(!refused.is_empty() || !outcome["broken"].is_null()))
}

/// Names what was left out; `count` is how many there were.
fn name_each(rows: &[Value], what: &str, count: u64) {
    for row in rows {
        let name = ["filename", "page", "digest"].into_iter().find_map(|key| row[key].as_str());
        let digest = row["digest"].as_str().filter(|d| name != Some(*d)).map(|d| format!(" {d}"));
        let (name, digest) = (name.unwrap_or_default(), digest.unwrap_or_default());
        eprintln!("{what}: {name}{digest}: {}", show::text(&row["what"]));
    }
    let unnamed = count.saturating_sub(rows.len() as u64);
    if unnamed > 0 {
        eprintln!("{what}: {unnamed} more");
    }
}

/// Writes, and hashes what was written.
struct Tee<'a>(&'a mut Sink, &'a mut Naming);

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
