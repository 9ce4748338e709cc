//! Sizes and times as people write them: `"50GB"`, `"500MiB"`, `"20%"`, `"5m"`, `"7d"`.

use std::time::Duration;

use serde::Deserialize;

use super::Budget;

/// A number of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub(super) u64);

/// A time in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

/// A budget in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Share(pub(super) Budget);

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse(&text, SIZES)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size, as \"50GB\" and \"500MiB\" are"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse(&text, TIMES)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| format!("{text:?} is no time, as \"30s\", \"5m\", \"12h\" and \"7d\" are"))
    }
}

impl TryFrom<String> for Share {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no budget, as \"20%\" of the disk and \"50GB\" are");
        let budget = match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim().parse().map_err(|_| wrong())?;
                Budget::Share(Some(percent).filter(|p| (1..=100).contains(p)).ok_or_else(wrong)?)
            }
            None => Budget::Bytes(parse(&text, SIZES).ok_or_else(wrong)?),
        };
        Ok(Self(budget))
    }
}

/// A decimal number and a unit; the unit is obligatory, so that nobody guesses it.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?.1;
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, part)) if !whole.is_empty() && (1..=9).contains(&part.len()) => {
            let scale = 10u128.pow(part.len() as u32);
            let value = whole.parse::<u64>().ok().map(u128::from)? * scale + part.parse::<u128>().ok()?;
            u64::try_from(value * u128::from(factor) / scale).ok()
        }
        Some(_) => None,
    }
}

const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// In milliseconds.
const TIMES: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("50GB", Some(50_000_000_000)),
            ("500MiB", Some(500 << 20)),
            (" 1.5 kb ", Some(1_500)),
            ("0.1GB", Some(100_000_000)),
            ("7B", Some(7)),
            ("7", None),
            ("GB", None),
            ("-1GB", None),
            (".5GB", None),
            ("1.GB", None),
            ("1.2.3GB", None),
            ("5 parsecs", None),
            ("99999999TB", None),
            ("18446744073709551615.9TB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(Size::try_from(text.to_owned()).ok(), bytes.map(Size), "{text}");
        }
    }

    #[test]
    fn times() {
        let cases =
            [("30s", Some(30)), ("5m", Some(300)), ("12h", Some(43_200)), ("7d", Some(604_800)), ("5", None)];
        for (text, seconds) in cases {
            let want = seconds.map(|s| Span(Duration::from_secs(s)));
            assert_eq!(Span::try_from(text.to_owned()).ok(), want, "{text}");
        }
    }

    #[test]
    fn budgets() {
        let cases = [
            ("20%", Some(Budget::Share(20))),
            ("100 %", Some(Budget::Share(100))),
            ("0%", None),
            ("101%", None),
            ("1GiB", Some(Budget::Bytes(1 << 30))),
        ];
        for (text, budget) in cases {
            assert_eq!(Share::try_from(text.to_owned()).ok(), budget.map(Share), "{text}");
        }
    }
}
