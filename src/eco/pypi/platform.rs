//! For which machines a file is, by its name (binary distribution format, "platform tag"). Pure.

/// Whether a file is of use on a machine, in Go's words as images have them (`linux/arm64`, `darwin/amd64`). What is no
/// wheel is of use on every one.
pub fn is_for(filename: &str, platform: &str) -> bool {
    let Some(name) = filename.strip_suffix(".whl") else { return true };
    let (os, machine) = platform.split_once('/').unwrap_or((platform, ""));
    let tags = name.rsplit('-').next().unwrap_or_default();
    tags.split('.').any(|tag| {
        let is_os = match os {
            "linux" => ["manylinux", "musllinux", "linux"].iter().any(|prefix| tag.starts_with(prefix)),
            "darwin" => tag.starts_with("macosx"),
            "windows" => tag.starts_with("win"),
            _ => false,
        };
        tag == "any" || is_os && names(machine).iter().any(|end| tag.ends_with(end))
    })
}

/// What a machine is called at the end of a tag.
fn names(machine: &str) -> &[&str] {
    match machine {
        "amd64" => &["_x86_64", "_amd64", "_universal2", "_intel"],
        "arm64" => &["_aarch64", "_arm64", "_universal2"],
        "386" => &["_i686", "win32"],
        "arm/v7" => &["_armv7l"],
        "arm" | "arm/v6" => &["_armv6l"],
        "ppc64le" => &["_ppc64le"],
        "s390x" => &["_s390x"],
        "riscv64" => &["_riscv64"],
        "loong64" => &["_loongarch64"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines() {
        let rows = [
            ("a-1.tar.gz", "linux/amd64", true),
            ("a-1-py3-none-any.whl", "windows/arm64", true),
            ("a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "linux/amd64", true),
            ("a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "linux/arm64", false),
            ("a-1-cp312-cp312-musllinux_1_2_aarch64.whl", "linux/arm64", true),
            ("a-1-cp312-cp312-linux_armv7l.whl", "linux/arm/v7", true),
            ("a-1-cp312-cp312-linux_armv7l.whl", "linux/arm64", false),
            ("a-1-cp312-cp312-macosx_11_0_arm64.whl", "darwin/arm64", true),
            ("a-1-cp312-cp312-macosx_11_0_universal2.whl", "darwin/amd64", true),
            ("a-1-cp312-cp312-macosx_11_0_arm64.whl", "linux/arm64", false),
            ("a-1-cp312-cp312-win_amd64.whl", "windows/amd64", true),
            ("a-1-cp312-cp312-win32.whl", "windows/386", true),
            ("a-1-cp312-cp312-win32.whl", "windows/amd64", false),
            ("a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "plan9/amd64", false),
            ("a.whl", "", false),
        ];
        for (file, platform, want) in rows {
            assert_eq!(is_for(file, platform), want, "{file} {platform}");
        }
    }
}
