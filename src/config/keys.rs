//! The name, form and bounds of each setting, and the suggestion for a misspelt name.

use std::{ops::RangeInclusive, time::Duration};

/// The first part of each environment variable.
pub(super) const ENV_PREFIX: &str = "DHTSTORE_";

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Longest ttl and interval. No publisher stays away longer, and times of records are 32-bit seconds.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The form of a setting, with its bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    Number(RangeInclusive<u64>),
    /// A number of bytes.
    Size(RangeInclusive<usize>),
    Duration(RangeInclusive<Duration>),
    /// `true` or `false`.
    Switch,
    /// Six fields, seconds first.
    Cron,
    /// A list of multiaddrs.
    Addresses,
    Path,
}

/// Every setting, in the order of config/dhtstore.toml. Rules that concern several settings are in `validate.rs`.
pub(super) static KEYS: [(&str, Kind); 58] = [
    ("profile", Kind::Choice(&["private", "amino"])),
    ("data_dir", Kind::Path),
    ("listen", Kind::Addresses),
    ("announce", Kind::Addresses),
    ("append_announce", Kind::Addresses),
    ("no_announce", Kind::Addresses),
    ("swarm_key", Kind::Path),
    ("bootstrap", Kind::Addresses),
    ("mode", Kind::Choice(&["auto", "server", "client"])),
    ("store.reserve", Kind::Size(0..=65_536 * GIB)),
    ("store.max_disk", Kind::Size(0..=1_048_576 * GIB)),
    ("records.ttl", Kind::Duration(SECOND..=MAX_TTL)),
    ("records.address_ttl", Kind::Duration(SECOND..=MAX_TTL)),
    ("records.clock_grace", Kind::Duration(Duration::ZERO..=DAY)),
    ("records.max", Kind::Number(1..=1_000_000_000)),
    ("records.max_per_provider", Kind::Number(1..=1_000_000_000)),
    ("records.max_providers_per_key", Kind::Number(1..=1_000_000)),
    // The address book numbers peers with 32 bits.
    ("records.max_peers", Kind::Number(1..=100_000_000)),
    ("values.ttl", Kind::Duration(SECOND..=MAX_TTL)),
    ("values.max", Kind::Number(1..=10_000_000)),
    ("values.max_bytes", Kind::Size(MIB..=64 * GIB)),
    ("reprovide.interval", Kind::Duration(SECOND..=MAX_TTL)),
    ("reprovide.max_cids", Kind::Number(0..=100_000_000)),
    ("provide.addresses", Kind::Addresses),
    ("routing.asn_database", Kind::Path),
    ("routing.saved_peers", Kind::Switch),
    ("connections.max", Kind::Number(1..=1_000_000)),
    ("connections.max_pending", Kind::Number(1..=1_000_000)),
    ("connections.max_pending_per_group", Kind::Number(1..=1_000_000)),
    ("connections.max_per_peer", Kind::Number(1..=1_000_000)),
    ("connections.max_per_ip", Kind::Number(1..=1_000_000)),
    ("connections.idle", Kind::Duration(SECOND..=DAY)),
    // The conformance list requires at least 256 streams per connection.
    ("streams.max_per_connection", Kind::Number(256..=65_536)),
    ("streams.idle", Kind::Duration(SECOND..=DAY)),
    ("streams.message_timeout", Kind::Duration(SECOND..=DAY)),
    ("streams.read_budget", Kind::Size(MIB..=64 * GIB)),
    ("autonat.enabled", Kind::Switch),
    ("autonat.max_dials", Kind::Number(1..=10_000)),
    ("autonat.max_dials_per_peer", Kind::Number(1..=10_000)),
    ("relay.enabled", Kind::Switch),
    ("relay.max_reservations", Kind::Number(1..=65_536)),
    ("relay.max_circuits", Kind::Number(1..=65_536)),
    ("relay.reservation_ttl", Kind::Duration(SECOND..=DAY)),
    ("relay.connection_duration_limit", Kind::Duration(SECOND..=DAY)),
    ("relay.connection_data_limit", Kind::Size(1..=64 * GIB)),
    ("websocket.certificate", Kind::Path),
    ("websocket.key", Kind::Path),
    ("websocket.ca", Kind::Path),
    ("control.socket", Kind::Path),
    ("jobs.gc.cron", Kind::Cron),
    ("jobs.gc.interval", Kind::Duration(SECOND..=MAX_TTL)),
    ("jobs.reprovide.cron", Kind::Cron),
    ("jobs.routing-refresh.cron", Kind::Cron),
    ("jobs.routing-refresh.interval", Kind::Duration(SECOND..=MAX_TTL)),
    ("jobs.routing-snapshot.cron", Kind::Cron),
    ("jobs.routing-snapshot.interval", Kind::Duration(SECOND..=MAX_TTL)),
    ("jobs.flush-state.cron", Kind::Cron),
    ("jobs.flush-state.interval", Kind::Duration(SECOND..=MAX_TTL)),
];

/// Returns the form of the setting `key`.
pub(super) fn kind(key: &str) -> Option<&'static Kind> {
    KEYS.iter().find(|(known, _)| *known == key).map(|(_, kind)| kind)
}

/// Settings of older versions. They have no effect and cause a warning, so that a new version starts with an old file.
pub(super) const RETIRED: [(&str, &str); 2] =
    [("jobs.export.cron", EXPORTS_RETIRED), ("jobs.export.interval", EXPORTS_RETIRED)];
const EXPORTS_RETIRED: &str =
    "has no effect, since provider records are no longer exported (log/ holds them); remove this setting";

/// Returns whether `prefix` is a table of settings. The empty prefix is the whole file.
pub(super) fn is_section(prefix: &str) -> bool {
    let mut all = KEYS.iter().map(|(key, _)| key).chain(RETIRED.iter().map(|(key, _)| key));
    prefix.is_empty() || all.any(|key| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the environment variable of a setting: `DHTSTORE_RECORDS_TTL` for `records.ttl`.
pub(super) fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace(['.', '-'], "_").to_uppercase())
}

pub(super) fn suggestion(key: &str) -> String {
    let sections = [
        "store",
        "records",
        "values",
        "reprovide",
        "provide",
        "routing",
        "connections",
        "streams",
        "autonat",
        "relay",
        "websocket",
        "control",
        "jobs",
    ];
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = nearest(key, KEYS.iter().map(|(known, _)| (*known).to_owned()).chain(sections.map(String::from)));
    // `ttl` at the top level is `records.ttl`.
    let by_name = || KEYS.iter().map(|(known, _)| *known).find(|known| last(known) == last(key)).map(String::from);
    did_you_mean(whole.or_else(by_name))
}

pub(super) fn did_you_mean(nearest: Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `dhtstore config default` lists all settings".into(),
    }
}

/// Returns the known name with the fewest edits, if they are at most a third of its letters.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (edits, best) = known.map(|candidate| (edits(name, &candidate), candidate)).min()?;
    (edits * 3 <= best.len().max(3)).then_some(best)
}

/// Returns the Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // Keys are short, so a long name is near none of them.
    for (i, from) in a.chars().take(128).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
