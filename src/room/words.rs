//! Ids and contents as Matrix has them, checked.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::RoomError;
use super::limits::{HEARD_BYTES, NAME_BYTES};

/// A user, as `@name:server`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// A room, as `!…`; since room version 12 without a server's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(Arc<str>);

/// The type of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<str>);

impl UserId {
    /// Reads a user id.
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        let named = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
        match named.is_some_and(|(name, server)| !name.is_empty() && !server.is_empty()) && is_name(text) {
            true => Ok(Self(text.into())),
            false => Err(RoomError::Malformed { what: "user id", text: shortened(text) }),
        }
    }
}

impl RoomId {
    /// Reads a room id.
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        match text.len() > 1 && text.starts_with('!') && is_name(text) {
            true => Ok(Self(text.into())),
            false => Err(RoomError::Malformed { what: "room id", text: shortened(text) }),
        }
    }
}

impl Kind {
    /// Reads an event type.
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        match !text.is_empty() && is_name(text) {
            true => Ok(Self(text.into())),
            false => Err(RoomError::Malformed { what: "event type", text: shortened(text) }),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text!(UserId, RoomId, Kind);

/// What an event says: the text of one JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(Arc<str>);

impl Content {
    /// Reads the text of a JSON object of at most [`HEARD_BYTES`].
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        if text.len() > HEARD_BYTES {
            return Err(RoomError::TooLarge { bytes: text.len(), most: HEARD_BYTES });
        }
        let object = text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok();
        match object {
            true => Ok(Self(text.into())),
            false => Err(RoomError::Malformed { what: "JSON object", text: shortened(text) }),
        }
    }

    /// Reads a content as a homeserver writes it, who may write a letter as six bytes (`\u00e4`).
    pub(super) fn heard(text: &str) -> Result<Self, RoomError> {
        if text.len() > 6 * HEARD_BYTES || !text.contains("\\u") {
            return Self::parse(text);
        }
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|_| RoomError::Malformed { what: "JSON object", text: shortened(text) })?;
        Self::parse(&value.to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let long = format!("@{}:s", "a".repeat(NAME_BYTES));
        for (text, good) in [
            ("@a:example.org", true),
            ("@a:[::1]:8448", true),
            ("a:example.org", false),
            ("@a", false),
            ("@:example.org", false),
            ("@a:", false),
            ("@a b:example.org", false),
            ("@a\n:example.org", false),
            (&long, false),
        ] {
            assert_eq!(UserId::parse(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("!abc", true),
            ("!abc:example.org", true),
            ("!", false),
            ("#abc:example.org", false),
            ("", false),
        ] {
            assert_eq!(RoomId::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn contents() {
        for (text, good) in
            [("{}", true), (r#" {"a":[1]}"#, true), ("[]", false), ("{", false), ("{}x", false)]
        {
            assert_eq!(Content::parse(text).is_ok(), good, "{text}");
        }
        let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(HEARD_BYTES));
        assert!(matches!(Content::parse(&huge), Err(RoomError::TooLarge { .. })));
        let escaped = format!("{{\"b\":1,\"a\":\"{}\"}}", "\\u00e4".repeat(HEARD_BYTES / 4));
        assert!(escaped.len() > HEARD_BYTES);
        let plain = format!("{{\"b\":1,\"a\":\"{}\"}}", "ä".repeat(HEARD_BYTES / 4));
        assert_eq!(Content::heard(&escaped).unwrap().as_str(), plain);
        let huge = format!("{{\"a\":\"{}\"}}", "\\u00e4".repeat(HEARD_BYTES));
        assert!(matches!(Content::heard(&huge), Err(RoomError::TooLarge { .. })));
    }
}
