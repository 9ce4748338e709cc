//! Where a login's secret comes from: a file, the environment, or the terminal.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::sink::INTERRUPTED;

/// Longest secret in bytes.
const SECRET_BYTES: u64 = 16 << 10;

/// The secret of a login, and whether it is a `password` or a `token`.
pub(super) fn secret(
    password_file: Option<&Path>,
    token_file: Option<&Path>,
    user: &str,
) -> Result<(&'static str, String)> {
    let stated = |name: &str| std::env::var(name).ok().filter(|secret| !secret.is_empty());
    Ok(match (password_file, token_file) {
        (Some(_), Some(_)) => bail!("--password-file and --token-file do not go together"),
        (Some(file), None) => ("password", read(file)?),
        (None, Some(file)) => ("token", read(file)?),
        (None, None) => match (stated("DPM_ROOM_PASSWORD"), stated("DPM_ROOM_TOKEN")) {
            (Some(_), Some(_)) => bail!("DPM_ROOM_PASSWORD and DPM_ROOM_TOKEN are both set; one is needed"),
            (Some(password), None) => ("password", password),
            (None, Some(token)) => ("token", token),
            (None, None) if std::io::stdin().is_terminal() => ("password", prompt(user)?),
            (None, None) => bail!(
                "no password was given: on a terminal it is asked for; else --password-file, --token-file, \
                 DPM_ROOM_PASSWORD or DPM_ROOM_TOKEN has it"
            ),
        },
    })
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    let length = opened.take(SECRET_BYTES + 1).read_to_string(&mut text);
    let length = length.with_context(|| format!("read {}", file.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains('\n') || length as u64 > SECRET_BYTES {
        bail!("{} holds no secret: one line is expected", file.display());
    }
    Ok(secret.to_owned())
}

/// Asks on the terminal, which does not show what is typed.
fn prompt(user: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin)?;
    let (mut silent, restored) = (before.clone(), before.clone());
    silent.local_modes.remove(LocalModes::ECHO);
    // Whoever breaks it off has the terminal back as it was.
    ctrlc::set_handler(move || {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &restored);
        eprintln!();
        std::process::exit(INTERRUPTED);
    })
    .context("watch for signals")?;
    // Before it is asked for: who answers at once, as a script does, would have it shown, and then thrown away.
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = ask(user).and_then(|()| stdin.read_line(&mut line));
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    eprintln!();
    read?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => bail!("no password was given"),
        password => Ok(password.to_owned()),
    }
}

fn ask(user: &str) -> std::io::Result<()> {
    let mut terminal = std::io::stderr();
    write!(terminal, "password of {user}: ")?;
    terminal.flush()
}
