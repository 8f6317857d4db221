//! Findings of a verification.

use crate::codec::CodecError;
use serde::{Deserialize, Serialize};

/// Findings of one kind that are told one by one; the others are counted.
pub const TOLD_MAX: usize = 100;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is lost.
    Note,
    /// The disk did not return it, so that nothing is known of it: exit 1 if nothing is damaged.
    Unread,
    /// Damage: exit 65.
    Damaged,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at: a file, a tree, a row.
    pub place: String,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// As it should be.
    pub fn ok(&mut self, place: &str, found: impl ToString) {
        self.push(Level::Ok, place, found, None);
    }

    /// Worth knowing.
    pub fn note(&mut self, place: &str, found: impl ToString, next: &str) {
        self.push(Level::Note, place, found, Some(next));
    }

    /// What the disk did not return.
    pub fn unread(&mut self, place: &str, error: impl ToString) {
        self.push(Level::Unread, place, error, Some("see to the disk (dmesg), then check again"));
    }

    /// Damage, unless the disk did not return it.
    pub fn bad(&mut self, place: &str, error: &CodecError, next: &str) {
        match error {
            CodecError::Io(error) => self.unread(place, format_args!("cannot be read: {error}")),
            error => self.damaged(place, error, next),
        }
    }

    /// Damage.
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

    /// All of them.
    pub fn into_inner(self) -> Vec<Finding> {
        self.0
    }
}

/// What a start makes of damage to provider records.
pub const RECORDS_NEXT: &str =
    "start the node: it keeps what can be read and sets the rest aside; publishers announce again within a day";
/// What a start makes of damage to what is ours.
pub const OWN_NEXT: &str =
    "start the node: it restores own CIDs and routing tables from exports/; keep a copy of the directory first";
