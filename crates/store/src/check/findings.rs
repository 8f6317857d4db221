//! Findings of a verification.

use crate::codec::CodecError;
use serde::{Deserialize, Serialize};

/// Maximum number of findings of one kind that are listed; further ones are counted.
pub const TOLD_MAX: usize = 100;

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Intact.
    Ok,
    /// Worth knowing; nothing is lost.
    Note,
    /// The disk returned an error, so the data may be intact or damaged: exit 1 if nothing is damaged.
    Unread,
    /// Damage: exit 65.
    Damaged,
}

/// One finding about one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Severity.
    pub level: Level,
    /// The file, tree or row.
    pub place: String,
    /// What was found there.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding about an intact place.
    pub fn ok(&mut self, place: &str, found: impl ToString) {
        self.push(Level::Ok, place, found, None);
    }

    /// Adds a finding that is worth knowing.
    pub fn note(&mut self, place: &str, found: impl ToString, next: &str) {
        self.push(Level::Note, place, found, Some(next));
    }

    /// Adds a finding about a place for which the disk returned an error.
    pub fn unread(&mut self, place: &str, error: impl ToString) {
        self.push(Level::Unread, place, error, Some("check the disk (dmesg), then run the check again"));
    }

    /// Adds a finding of damage, or of a place that the disk could not read.
    pub fn bad(&mut self, place: &str, error: &CodecError, next: &str) {
        match error {
            CodecError::Io(error) => self.unread(place, format_args!("cannot be read: {error}")),
            error => self.damaged(place, error, next),
        }
    }

    /// Adds a finding of damage.
    pub fn damaged(&mut self, place: &str, found: impl ToString, next: &str) {
        self.push(Level::Damaged, place, found, Some(next));
    }

    fn push(&mut self, level: Level, place: &str, found: impl ToString, next: Option<&str>) {
        self.0.push(Finding {
            level,
            place: place.to_owned(),
            found: found.to_string(),
            next: next.map(str::to_owned),
        });
    }

    /// Returns all findings.
    pub fn into_inner(self) -> Vec<Finding> {
        self.0
    }
}

/// The next step for damage to provider records: what a start does about it.
pub const RECORDS_NEXT: &str =
    "start the node: it keeps what can be read and sets the rest aside; publishers announce again within a day";
/// The next step for damage to own CIDs and routing tables.
pub const OWN_NEXT: &str =
    "start the node: it restores own CIDs and routing tables from exports/; keep a copy of the directory first";
