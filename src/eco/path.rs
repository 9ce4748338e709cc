//! Segments of a request's path, read so that they mean the same to whoever comes after.

use std::borrow::Cow;

use crate::base::limits;

/// A segment of a raw path, decoded once; one that could mean something else elsewhere is an error.
pub(super) fn segment(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let segment = percent_decode(raw)?;
    if segment.is_empty() {
        return Err(PathError::EmptySegment);
    }
    if segment == "." || segment == ".." {
        return Err(PathError::DotSegment);
    }
    if segment.contains(['/', '\\']) {
        return Err(PathError::Separator);
    }
    if segment.contains(char::is_control) {
        return Err(PathError::Control);
    }
    Ok(segment)
}

/// Decodes `%xx` once; `+` stays a plus.
pub(super) fn percent_decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or(PathError::Escape);
        decoded.push((digit()? << 4 | digit()?) as u8);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PathError::NotUtf8)
}

/// Why a path is refused, all for 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Over [`limits::PATH_BYTES`].
    #[error("the path has more than {} bytes", limits::PATH_BYTES)]
    TooLong,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, escaped or not.
    #[error("the path has a segment '.' or '..'")]
    DotSegment,
    /// An escaped slash, or a backslash.
    #[error("a path segment contains a slash or backslash")]
    Separator,
    /// NUL, line feed and their like.
    #[error("a path segment contains a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent-escape")]
    Escape,
    /// Escapes that are not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
}
