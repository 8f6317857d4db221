//! Checks the trees of both databases, row by row.

use super::findings::{Findings, OWN_NEXT, RECORDS_NEXT, TOLD_MAX};
use crate::{
    StoreError,
    clock::UnixTime,
    codec,
    data_dir::names::{EXPORTS, LOG, RECORDS},
    engine::{Walk, Walked, each_row, guard, panic_text},
    filesystem::bytes_below,
    kad,
    meta::{Floor, SCHEMA, floor_of, own_of, schema_of},
    provided::{
        exports,
        own::{OwnRow, Position},
        trie::Trie,
    },
    records::{
        book::PeerRow,
        entry,
        log::{Log, chunk_name, chunk_time, tree},
    },
    routing::SavedRow,
    values::ValueRow,
};
use libp2p_identity::PeerId;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    thread,
    time::Duration,
};

/// Both databases, each if it opens.
pub struct Databases {
    pub node: Option<sled::Db>,
    pub records: Option<Log>,
}

impl Databases {
    /// Opens the databases of a copy of the data directory.
    pub fn open(copy: &Path, dir: &Path, findings: &mut Findings) -> Result<Self, StoreError> {
        let node = open(copy, dir, "node", OWN_NEXT, findings);
        if let Some(found) = node.as_ref().and_then(|db| schema_of(db).ok().flatten()) {
            match found {
                found if found > SCHEMA => return Err(StoreError::FromTheFuture { found, known: SCHEMA }),
                found if found < SCHEMA => findings.note(
                    "node/ meta",
                    format_args!("schema {found}; this program writes {SCHEMA}"),
                    "the next start migrates it, or `dhtstore migrate` now",
                ),
                found => findings.ok("node/ meta", format_args!("schema {found}")),
            }
        }
        let records = open(copy, dir, "records", RECORDS_NEXT, findings);
        let records = records.and_then(|db| match Log::open(db, copy.join(RECORDS), copy.join(LOG)) {
            Ok(log) => Some(log),
            Err(error) => {
                findings.damaged("records/", error, RECORDS_NEXT);
                None
            }
        });
        Ok(Self { node, records })
    }

    /// Returns what `node/` says that the log holds.
    pub fn floor(&self) -> Option<Floor> {
        self.node.as_ref().and_then(|db| floor_of(db).ok().flatten())
    }
}

/// Returns whether a file next to a database shows that the database was used.
fn was_in_use(dir: &Path) -> bool {
    let has = |name: &str| fs::read_dir(dir.join(name)).is_ok_and(|mut entries| entries.next().is_some());
    has("exports") || has("log")
}

/// Opens a database of the copy, in a thread of its own because sled may panic on damage. sled repairs what it opens,
/// so only the copy changes.
fn open(copy: &Path, original: &Path, name: &str, next: &str, findings: &mut Findings) -> Option<sled::Db> {
    let dir = copy.join(name);
    let place = original.join(name);
    if fs::symlink_metadata(&place).is_ok() && !place.is_dir() {
        let next = "no start can use it: move the file away, and put the directory back (else the next start restores \
            what exports/ and log/ hold)";
        findings.damaged(&format!("{name}/"), "is a file, not a directory", next);
        return None;
    }
    if !dir.is_dir() && was_in_use(original) {
        let next = "put it back; else the next start makes an empty one, and restores what exports/ and log/ hold";
        findings.damaged(&format!("{name}/"), "is missing, and was there before", next);
        return None;
    }
    if !dir.is_dir() {
        findings.note(
            &format!("{name}/"),
            "is missing",
            "the next start makes an empty one, and restores what exports/ holds",
        );
        return None;
    }
    let opened = thread::Builder::new().name("sled-open".into()).spawn(move || sled::Config::new().path(dir).open());
    let opened = match opened.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(panic)) => Err(panic_text(panic.as_ref())),
        Err(error) => Err(error.to_string()),
    };
    opened.map_err(|error| findings.damaged(&format!("{name}/"), format_args!("cannot be opened: {error}"), next)).ok()
}

/// The peer numbers that the address book knows.
pub struct KnownPeers(HashSet<u32>);

impl KnownPeers {
    pub fn read(records: &Log, findings: &mut Findings) -> Self {
        let mut known = HashSet::new();
        let mut bad = Bad::new("records/ peers", "the records of these peers cannot be served; they announce again");
        for found in Walk::forwards(records.peers(), 0, u64::from(u32::MAX)) {
            match found {
                Walked::Row(id, row) => match codec::decode::<PeerRow>(&row).map(|row| PeerId::from_bytes(&row.peer)) {
                    Ok(Ok(_)) => drop(known.insert(id as u32)),
                    Ok(Err(error)) => bad.add(findings, format!("peer {id}"), error.to_string()),
                    Err(error) => bad.add(findings, format!("peer {id}"), error.to_string()),
                },
                Walked::Lost(from, to, error) => bad.add(findings, format!("peers {from} to {to}"), error.to_string()),
            }
        }
        bad.end(findings, format!("{} peers", known.len()));
        Self(known)
    }
}

/// Checks every chunk: its checksum, its entries, and that the address book knows the peers that they name.
pub fn log(records: &Log, peers: &KnownPeers, findings: &mut Findings) {
    let mut bad = Bad::new("records/ log", RECORDS_NEXT);
    let (mut chunks, mut entries, mut unknown) = (0u64, 0u64, 0u64);
    for found in Walk::forwards(records.chunks(), 0, u64::MAX) {
        match found {
            Walked::Row(key, chunk) => match entry::decode(&chunk) {
                Ok(found) => {
                    chunks += 1;
                    entries += found.len() as u64;
                    unknown += found.iter().filter(|entry| !peers.0.contains(&entry.peer)).count() as u64;
                }
                // A chunk of version 1: the database needs a migration, which the finding about its schema says.
                Err(codec::CodecError::Version(1)) => chunks += 1,
                Err(error) => bad.add(findings, chunk_name(key), error.to_string()),
            },
            Walked::Lost(from, to, error) => {
                bad.add(findings, format!("{} to {}", chunk_name(from), chunk_name(to)), error.to_string());
            }
        }
    }
    if unknown > 0 {
        let found = format!("{unknown} entries name peers that are not in the address book");
        findings.damaged("records/ log", found, "their records cannot be served; they announce again");
    }
    bad.end(findings, format!("{chunks} chunks with {entries} entries"));
}

/// Checks that the frame of every value is whole, and that the value is valid or has ended.
pub fn values(records: &Log, now: UnixTime, findings: &mut Findings) {
    let mut bad = Bad::new("records/ values", "it is not served, and the next collection removes it");
    let mut count = 0u64;
    let Ok(tree) = records.database.read(tree::VALUES, |tree| Ok(tree.clone())) else { return };
    let unread = each_row(&tree, |key, bytes| {
        let place = || kad::values::key_text::show(key);
        match codec::read_frame::<ValueRow>(&mut &*bytes) {
            Ok(Some(row)) => match kad::values::validate(key, row.value(), Duration::from_secs(now.0.into())) {
                Ok(()) | Err(kad::values::Invalid::Expired) => count += 1,
                Err(error) => bad.add(findings, place(), error.to_string()),
            },
            Ok(None) => bad.add(findings, place(), "an empty row".into()),
            Err(error) => bad.add(findings, place(), error.to_string()),
        }
    });
    if let Some(error) = unread {
        bad.add(findings, "some values".into(), error.to_string());
    }
    bad.end(findings, format!("{count} values"));
}

/// Checks that the log still reaches the newest chunk that `node/` has noted, unless that chunk has expired.
pub fn floor(databases: &Databases, ttl: Duration, now: UnixTime, findings: &mut Findings) {
    let floor = databases.floor();
    let (Some(promised), Some(log)) = (floor.and_then(|floor| floor.newest), &databases.records) else { return };
    if now.since(UnixTime(chunk_time(promised))) >= ttl {
        return;
    }
    match log.newest() {
        Some(newest) if newest >= promised => findings.ok("records/ floor", "the log reaches as far as it did"),
        newest => {
            let found = newest.map_or("is empty".into(), |key| format!("ends at {}", UnixTime(chunk_time(key))));
            let found = format!("the log {found}, and reached {} before", UnixTime(chunk_time(promised)));
            findings.damaged("records/ floor", found, RECORDS_NEXT);
        }
    }
}

/// Checks own CIDs against their count, exports and journals; and checks routing tables.
pub fn node(db: &sled::Db, dir: &Path, findings: &mut Findings) {
    let mut bad = Bad::new("node/ provided", OWN_NEXT);
    let mut rows = Vec::new();
    let unread = match guard(|| db.open_tree("provided")) {
        Ok(tree) => each_row(&tree, |key, value| rows.push((key.to_vec(), value.to_vec()))),
        Err(error) => Some(error),
    };
    if let Some(error) = unread {
        bad.add(findings, "some own CIDs".into(), error.to_string());
    }
    rows.sort();
    let mut damage = Vec::new();
    let trie = Trie::load(rows.into_iter(), |key, why| damage.push((format!("own CIDs of {key:02x?}"), why)));
    damage.into_iter().for_each(|(place, why)| bad.add(findings, place, why));
    let promised = own_of(db).ok().flatten();
    if let Some(promised) = promised.filter(|promised| *promised != trie.len() as u64) {
        bad.add(findings, "own CIDs".into(), format!("{} instead of {promised}", trie.len()));
    }
    let journal = exports::read(&dir.join(EXPORTS), false).journal;
    if schema_of(db).ok().flatten() == Some(SCHEMA) {
        compare(&trie, &journal, &dir.join(EXPORTS), &mut bad, findings);
    }
    let missing = journal.iter().filter(|(position, row)| row.is_some() && trie.get(position).is_none()).count();
    if missing > 0 {
        let next = "the next start adds them from the journal";
        findings.note("node/ provided", format_args!("{missing} own CIDs are in the journal alone"), next);
    }
    bad.end(findings, format!("{} own CIDs", trie.len()));

    let mut bad = Bad::new("node/ routing", "the node fills its routing tables again from the network");
    let mut peers = 0;
    if let Ok(tree) = guard(|| db.open_tree("routing")) {
        let unread = each_row(&tree, |key, value| match codec::decode::<Vec<SavedRow>>(value) {
            Ok(rows) => peers += rows.len(),
            Err(error) => bad.add(findings, String::from_utf8_lossy(key).into_owned(), error.to_string()),
        });
        unread.into_iter().for_each(|error| bad.add(findings, "some rows".into(), error.to_string()));
    }
    bad.end(findings, format!("{peers} peers"));
    findings.ok("exports/", format_args!("{} bytes", bytes_below(&dir.join(EXPORTS))));
}

/// Compares own CIDs in `node/` with those in `exports/`. If only one of the two holds a CID, losing that one loses the
/// CID.
fn compare(
    trie: &Trie,
    journal: &BTreeMap<Position, Option<OwnRow>>,
    exports: &Path,
    bad: &mut Bad,
    findings: &mut Findings,
) {
    let all = exports::read(exports, true);
    let last = |position: &Position| all.journal.get(position).or_else(|| journal.get(position));
    let exported = |position: &Position| match last(position) {
        Some(last) => last.is_some(),
        None => all.own.contains_key(position),
    };
    // A removal that a kill kept from reaching `node/`: the next start applies it from the journal.
    let removed = |position: &Position| matches!(journal.get(position), Some(None));
    let here = trie.from(&[0; 32]).filter(|(position, _)| !exported(position) && !removed(position)).count();
    if here > 0 {
        bad.add(findings, "own CIDs".into(), format!("{here} are in node/ alone: exports/ has lost them"));
    }
    let there = all.own.keys().filter(|position| exported(position) && !journal.contains_key(*position));
    let there = there.filter(|position| trie.get(position).is_none()).count();
    if there > 0 {
        bad.add(findings, "own CIDs".into(), format!("{there} are in exports/ alone"));
    }
}

/// Bad rows of one tree.
struct Bad {
    tree: &'static str,
    next: &'static str,
    count: usize,
}

impl Bad {
    fn new(tree: &'static str, next: &'static str) -> Self {
        Self { tree, next, count: 0 }
    }

    fn add(&mut self, findings: &mut Findings, place: String, error: String) {
        self.count += 1;
        if self.count <= TOLD_MAX {
            findings.damaged(&format!("{} {place}", self.tree), error, self.next);
        }
    }

    fn end(self, findings: &mut Findings, whole: String) {
        if self.count > TOLD_MAX {
            findings.damaged(self.tree, format_args!("{} such places in total", self.count), self.next);
        }
        findings.ok(self.tree, whole);
    }
}
