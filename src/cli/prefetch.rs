//! `dpm prefetch`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use argh::FromArgs;
use serde_json::Value;

use crate::daemon::{Order, Prefetch};
use crate::eco::oci::{Platforms, is_platform, platform_here};

use super::orders::{self, Streams};
use super::show;

/// Store images before anybody asks for them: the tag's meaning now, its manifests, configurations and layers; or files
/// of packages. Exits with 1 when something could not be had. The running node does it; without one, dpm asks the
/// registries itself.
#[derive(FromArgs)]
#[argh(subcommand, name = "prefetch")]
pub(super) struct PrefetchCommand {
    /// images (docker.io/library/alpine:3.20, ghcr.io/org/image@sha256:…), or package URLs (pkg:pypi/NAME@VERSION)
    #[argh(positional)]
    what: Vec<String>,
    /// for which machines, as linux/arm64 or linux/arm/v7; repeatable (default: Linux on this machine's processor)
    #[argh(option, arg_name = "os/arch")]
    platform: Vec<String>,
    /// for every machine that there is an image for
    #[argh(switch)]
    all_platforms: bool,
    /// signatures and what else refers to the images come along
    #[argh(switch)]
    with_signatures: bool,
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

/// What `--platform` and `--all-platforms` say.
pub(super) fn platforms(all: bool, these: Vec<String>) -> Result<Platforms> {
    if let Some(bad) = these.iter().find(|platform| !is_platform(platform)) {
        bail!("--platform {bad}: a platform is written linux/arm64 or linux/arm/v7");
    }
    Ok(match (all, these.is_empty()) {
        (true, false) => bail!("--platform and --all-platforms do not go together"),
        (true, true) => Platforms::All,
        (false, true) => Platforms::These(vec![platform_here(std::env::consts::ARCH)]),
        (false, false) => Platforms::These(these),
    })
}

pub(super) fn prefetch(args: PrefetchCommand) -> Result<u8> {
    if args.what.is_empty() {
        bail!("name images, as docker.io/library/alpine:3.20");
    }
    let platforms = platforms(args.all_platforms, args.platform)?;
    let order = Order::Prefetch(Prefetch { what: args.what, platforms, signatures: args.with_signatures });
    let streams = Streams { input: Box::new(std::io::empty()), output: &mut std::io::sink() };
    let outcome = orders::carry_out(&order, args.config, args.data, args.json, streams)?;
    let rows = |key: &str| outcome[key].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json {
        show::json(&outcome);
        return Ok(u8::from(!rows("failed").is_empty()));
    }
    for row in rows("prefetched") {
        println!("{}  {}", show::text(&row["what"]), show::text(&row["digest"]));
        let sum = |key: &str| format!("{} ({})", row[key]["artifacts"], show::bytes(&row[key]["bytes"]));
        println!(
            "  {} fetched, {} from peers, {} here already",
            sum("fetched"),
            sum("from_peers"),
            sum("already_here")
        );
        if row["confirmed"] == Value::Bool(false) {
            println!("  the registry could not be asked: this is what the tag meant the last time");
        }
        for unanswered in row["unanswered"].as_array().into_iter().flatten() {
            println!("  not known: {}", show::text(unanswered));
        }
    }
    for row in rows("failed") {
        eprintln!("{}: {}", show::text(&row["what"]), show::text(&row["error"]));
    }
    Ok(u8::from(!rows("failed").is_empty()))
}
