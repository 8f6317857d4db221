//! How durations, sizes and addresses are written in a configuration file.

use std::time::Duration;

/// Writes a duration as people do for a DHT: `48h`, not `2days`. The text parses to the same duration.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
        (u64::from(duration.subsec_micros() % 1_000), "us"),
        (u64::from(duration.subsec_nanos() % 1_000), "ns"),
    ];
    let shown: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".into() } else { shown.join(" ") }
}

/// Writes a size with the largest binary unit that divides it: `64MiB`.
pub(super) fn show_bytes(size: usize) -> String {
    let unit = UNITS.iter().find(|(_, unit)| size >= *unit && size.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("B", 1));
    format!("{}{name}", size / unit)
}

/// The units of sizes, largest first.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Durations: `12h`, `500ms`, `1h 30m`.
pub(super) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(in crate::config) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::show_duration(*value))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(text.trim()).map_err(|e| {
            D::Error::custom(format!("\"{text}\" is not a duration ({e}); write one like \"12h\" or \"90s\""))
        })
    }
}

/// Sizes: a number of bytes, or text with a binary unit: `64MiB`.
pub(super) mod bytes {
    use super::UNITS;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::config) fn serialize<S: Serializer>(value: &usize, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::show_bytes(*value))
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
        let written = Written::deserialize(d)
            .map_err(|_| D::Error::custom("not a size; write a number of bytes or text like \"64MiB\""))?;
        let (number, unit) = match &written {
            Written::Number(number) => return usize::try_from(*number).map_err(D::Error::custom),
            Written::Text(text) => {
                let text = text.trim();
                let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                text.split_at(end)
            }
        };
        let factor = match unit.trim() {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, size)| *size),
        };
        number.parse::<usize>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or_else(
            || {
                D::Error::custom(format!(
                    "\"{number}{unit}\" is not a size; write bytes or text like \"64MiB\" (B, KiB, MiB, GiB)"
                ))
            },
        )
    }
}

/// Lists of multiaddrs. The error quotes the one that does not parse.
pub(super) mod addresses {
    use crate::kad::peer_id::parse_multiaddr;
    use libp2p::Multiaddr;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::config) fn serialize<S: Serializer>(value: &[Multiaddr], s: S) -> Result<S::Ok, S::Error> {
        value.iter().map(ToString::to_string).collect::<Vec<_>>().serialize(s)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Multiaddr>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        let parse = |text: &String| {
            parse_multiaddr(text.trim()).map_err(|e| {
                D::Error::custom(format!(
                    "\"{text}\" is not a multiaddr ({e}); write one like \"/ip4/192.0.2.1/tcp/4001\""
                ))
            })
        };
        texts.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_shown_as_people_write_them() {
        for (text, millis) in [("48h", 172_800_000), ("1h 30m", 5_400_000), ("500ms", 500), ("0s", 0)] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back_the_same(seconds in 0u64..10_000_000, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(humantime::parse_duration(&show_duration(duration)).unwrap(), duration);
        }
    }
}
