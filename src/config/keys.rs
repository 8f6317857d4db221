//! The names of all settings, and what to say when one is misspelt.

/// What the environment variables of this program begin with.
pub(super) const ENV_PREFIX: &str = "DHTSTORE_";

/// How a setting is written where there is only text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    List,
    Path,
}

/// Every setting. A test proves that it is complete.
pub(super) const KEYS: [(&str, Kind); 58] = [
    ("profile", Kind::Text),
    ("data_dir", Kind::Path),
    ("listen", Kind::List),
    ("announce", Kind::List),
    ("append_announce", Kind::List),
    ("no_announce", Kind::List),
    ("swarm_key", Kind::Path),
    ("bootstrap", Kind::List),
    ("mode", Kind::Text),
    ("store.reserve", Kind::Text),
    ("store.max_disk", Kind::Text),
    ("records.ttl", Kind::Text),
    ("records.address_ttl", Kind::Text),
    ("records.clock_grace", Kind::Text),
    ("records.max", Kind::Number),
    ("records.max_per_provider", Kind::Number),
    ("records.max_providers_per_key", Kind::Number),
    ("records.max_peers", Kind::Number),
    ("values.ttl", Kind::Text),
    ("values.max", Kind::Number),
    ("values.max_bytes", Kind::Text),
    ("reprovide.interval", Kind::Text),
    ("reprovide.max_cids", Kind::Number),
    ("provide.addresses", Kind::List),
    ("routing.asn_database", Kind::Path),
    ("routing.saved_peers", Kind::Switch),
    ("connections.max", Kind::Number),
    ("connections.max_pending", Kind::Number),
    ("connections.max_pending_per_group", Kind::Number),
    ("connections.max_per_peer", Kind::Number),
    ("connections.max_per_ip", Kind::Number),
    ("connections.idle", Kind::Text),
    ("streams.max_per_connection", Kind::Number),
    ("streams.idle", Kind::Text),
    ("streams.message_timeout", Kind::Text),
    ("streams.read_budget", Kind::Text),
    ("autonat.enabled", Kind::Switch),
    ("autonat.max_dials", Kind::Number),
    ("autonat.max_dials_per_peer", Kind::Number),
    ("relay.enabled", Kind::Switch),
    ("relay.max_reservations", Kind::Number),
    ("relay.max_circuits", Kind::Number),
    ("relay.reservation_ttl", Kind::Text),
    ("relay.connection_duration_limit", Kind::Text),
    ("relay.connection_data_limit", Kind::Text),
    ("websocket.certificate", Kind::Path),
    ("websocket.key", Kind::Path),
    ("websocket.ca", Kind::Path),
    ("control.socket", Kind::Path),
    ("jobs.gc.cron", Kind::Text),
    ("jobs.gc.interval", Kind::Text),
    ("jobs.reprovide.cron", Kind::Text),
    ("jobs.routing-refresh.cron", Kind::Text),
    ("jobs.routing-refresh.interval", Kind::Text),
    ("jobs.routing-snapshot.cron", Kind::Text),
    ("jobs.routing-snapshot.interval", Kind::Text),
    ("jobs.flush-state.cron", Kind::Text),
    ("jobs.flush-state.interval", Kind::Text),
];

/// Settings of older versions. They do nothing and are warned of, so that a new version starts with an old file.
pub(super) const RETIRED: [(&str, &str); 2] =
    [("jobs.export.cron", EXPORTS_RETIRED), ("jobs.export.interval", EXPORTS_RETIRED)];
const EXPORTS_RETIRED: &str =
    "provider records are not exported any more, log/ is all that is needed; remove this setting";

/// Whether `prefix` is a table of settings; the empty one is the whole file.
pub(super) fn is_section(prefix: &str) -> bool {
    let mut all = KEYS.iter().map(|(key, _)| key).chain(RETIRED.iter().map(|(key, _)| key));
    prefix.is_empty() || all.any(|key| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
}

/// `records.ttl` -> `DHTSTORE_RECORDS_TTL`.
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

/// The name with the fewest edits, if they are at most a third of its letters.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (edits, best) = known.map(|candidate| (edits(name, &candidate), candidate)).min()?;
    (edits * 3 <= best.len().max(3)).then_some(best)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // Keys are short; a long name is not near any of them.
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
