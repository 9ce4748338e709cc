//! `requirements.txt`, as far as it pins: `name==version`, with `--hash` or without (pip, "Requirements File Format").

use super::{LockError, Locked, pypi, shown};
use crate::base::Digest;

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let mut locked = Locked::default();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, first)) = lines.next() {
        let mut whole = without_comment(first).to_owned();
        while whole.trim_end().ends_with('\\') {
            whole.truncate(whole.trim_end().len() - 1);
            let Some((_, next)) = lines.next() else { break };
            whole.push(' ');
            whole.push_str(without_comment(next));
        }
        let whole = whole.trim();
        if !whole.is_empty() {
            take(&mut locked, whole).map_err(|e| match e {
                LockError::TooMany => e,
                other => LockError::Syntax { line, why: other.to_string() },
            })?;
        }
    }
    Ok(locked)
}

fn take(locked: &mut Locked, text: &str) -> Result<(), LockError> {
    if text.starts_with('-') {
        // Where to get packages is another's business; which packages there are is not.
        let names = ["-r", "--requirement", "-c", "--constraint", "-e", "--editable"];
        return match names.iter().any(|option| text.starts_with(option)) {
            true => locked.pass_over(text, ELSEWHERE),
            false => Ok(()),
        };
    }
    let (requirement, options) = text.split_once(" --").unwrap_or((text, ""));
    let requirement = requirement.split(';').next().unwrap_or_default().trim();
    if requirement.contains(" @") || requirement.contains("://") || requirement.starts_with(['.', '/']) {
        return locked.pass_over(requirement, ELSEWHERE);
    }
    let Some((name, version)) = requirement.split_once("==") else {
        return locked.pass_over(requirement, "no one version (==)");
    };
    let (name, version) = (name.trim(), version.trim_start_matches('=').trim());
    if name.contains(['<', '>', '~', '!']) || version.contains([',', '*', ' ']) {
        return locked.pass_over(requirement, "no one version (==)");
    }
    let name = name.split('[').next().unwrap_or_default().trim();
    let hashes = options
        .split_ascii_whitespace()
        .filter_map(|option| option.trim_start_matches('-').strip_prefix("hash="));
    let digest = |hash: &str| {
        hash.parse::<Digest>().map_err(|_| LockError::Digest { name: shown(name), digest: shown(hash) })
    };
    locked.put(pypi(name, version), hashes.map(digest).collect::<Result<Vec<_>, _>>()?, name)
}

const ELSEWHERE: &str = "another file, a folder or a URL";

/// A comment begins a line or follows a space.
fn without_comment(line: &str) -> &str {
    match line.trim_start().starts_with('#') {
        true => "",
        false => line.split(" #").next().unwrap_or_default(),
    }
}
