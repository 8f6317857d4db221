//! Verification of everything that a data directory holds. The directory of a stopped node stays byte for byte as it
//! is: databases are read from a copy, without the recovery that an open would begin with.

mod databases;
mod findings;
mod identity;
mod segments;

pub use identity::{Announced, announced};

use super::provided::exports::Verified;
use super::{
    Store, StoreError,
    data_dir::{self, names::EXPORTS},
    filesystem, is_data_dir,
    provided::exports,
    records,
};
use databases::{Databases, KnownPeers};
use findings::Findings;
pub use findings::{Finding, Level};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Verifies the directory of a stopped node. `ttl` is that of records.
///
/// # Errors
/// [`StoreError::NoDatabase`]; [`StoreError::Locked`] while a server has the directory; [`StoreError::Io`] if it cannot
/// be read or copied; [`StoreError::FromTheFuture`]. Damage is a finding and not an error.
pub fn stopped(dir: &Path, ttl: Duration, now: crate::clock::UnixTime) -> Result<Vec<Finding>, StoreError> {
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    may_read(dir)?;
    let mut findings = Findings::default();
    rights(dir, &mut findings);
    exports(&dir.join(EXPORTS), &mut findings);
    set_aside(dir, &mut findings);
    let copy = data_dir::copy_for_reading(dir, None)?;
    let databases = Databases::open(copy.path(), dir, &mut findings)?;
    if let Some(node) = &databases.node {
        databases::node(node, dir, &mut findings);
    }
    if let Some(records) = &databases.records {
        let peers = KnownPeers::read(records, &mut findings);
        databases::log(records, &peers, &mut findings);
        segments::check(dir, records, databases.floor(), (ttl, now), &mut findings);
        databases::values(records, now, &mut findings);
        databases::floor(&databases, ttl, now, &mut findings);
    }
    if databases.records.is_none() {
        segments::check_alone(dir, None, &mut findings);
    }
    Ok(findings.into_inner())
}

/// Returns an error if this user has no permission to read the files. Such files may be intact, so another user has to
/// run the check.
fn may_read(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|e| filesystem::io_error("read", dir, e))? {
        let entry = entry.map_err(|e| filesystem::io_error("read", dir, e))?;
        let (path, kind) = (entry.path(), entry.file_type());
        let kind = kind.map_err(|e| filesystem::io_error("read", &path, e))?;
        let outcome = match kind {
            kind if kind.is_dir() => may_read(&path),
            kind if kind.is_file() => {
                fs::File::open(&path).map(drop).map_err(|e| filesystem::io_error("read", &path, e))
            }
            _ => Ok(()),
        };
        match outcome {
            // Other errors are reported where the file is read.
            Err(StoreError::Io { source, .. }) if source.kind() != std::io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Returns what a running store can report about itself.
pub fn running(store: &Store) -> Vec<Finding> {
    let mut findings = Findings::default();
    store.records.wait_replayed();
    let stat = store.stat();
    let passing = store.passing_notes();
    for note in &stat.notes {
        if passing.contains(note) {
            findings.note("store", note, "no data is lost; see the log and the disk");
            continue;
        }
        findings.damaged("store", note, "recovered at the start, or skipped; see the log");
    }
    for (name, what) in [
        ("damaged", "places of records/ cannot be read"),
        ("values_damaged", "rows of values cannot be read"),
        ("replay_unknown_peer", "entries of the log name peers that are not in the address book"),
    ] {
        match stat.counters.get(name).copied().unwrap_or(0) {
            0 => {}
            n => findings.damaged("records/", format_args!("{n} {what}"), "they expire within the ttl"),
        }
    }
    for name in ["records_database_failures", "node_database_failures"] {
        match stat.counters.get(name).copied().unwrap_or(0) {
            0 => {}
            // Accepted data is kept in memory, and written once the disk works again.
            n => findings.note(name, format_args!("{n} operations failed"), "see the log and the disk"),
        }
    }
    exports(&store.opened.dir.join(EXPORTS), &mut findings);
    segments::check_alone(&store.opened.dir, Some(&store.records.state.log), &mut findings);
    rights(&store.opened.dir, &mut findings);
    findings
        .ok("records/", format_args!("{} records of {} peers in {} chunks", stat.records, stat.peers, stat.log_chunks));
    findings.ok("node/", format_args!("schema {}, {} own CIDs", stat.schema, stat.provided));
    findings.into_inner()
}

/// Checks that only the owner may open files that hold secrets.
fn rights(dir: &Path, findings: &mut Findings) {
    for (name, secret) in [("", true), ("identity.key", true), ("swarm.key", true)] {
        let path = if name.is_empty() { dir.to_owned() } else { dir.join(name) };
        let Ok(found) = fs::metadata(&path) else { continue };
        let mode = found.permissions().mode() & 0o777;
        if secret && mode & 0o077 != 0 {
            let next = format!("chmod go-rwx {}", path.display());
            findings.note(&path.display().to_string(), format_args!("mode {mode:o}: others may open it"), &next);
        }
    }
}

/// Reads every frame of every export and journal.
fn exports(dir: &Path, findings: &mut Findings) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let old = records::salvage::old_exports::list(dir).len();
    if old > 0 {
        let next = "the next start copies the records that log/ lacks from these exports, then removes the exports";
        findings.note("exports/", format_args!("{old} exports of provider records, made by older versions"), next);
    }
    for path in paths {
        let place = format!("exports/{}", path.file_name().unwrap_or_default().to_string_lossy());
        match exports::verify(&path) {
            None => {}
            Some(Ok(Verified::Whole(own))) => findings.ok(&place, format_args!("{own} own CIDs or changes")),
            Some(Ok(Verified::Cut(error))) => findings.note(
                &place,
                format_args!("ends with a change that is incomplete: {error}"),
                "the process was killed before the change was acknowledged; nothing to do",
            ),
            Some(Ok(Verified::Damaged(error))) => findings.damaged(
                &place,
                error,
                "start the node: it makes a new export from node/; after three newer exports, it removes this file",
            ),
            Some(Err(error)) => findings.unread(&place, format_args!("cannot be read: {error}")),
        }
    }
}

/// Reports the databases that recovery has set aside.
fn set_aside(dir: &Path, findings: &mut Findings) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".damaged-") {
            let next = "inspect it, or remove it to free the space";
            findings.note(&name, "set aside by an earlier start, which continued without it", next);
        }
    }
}
