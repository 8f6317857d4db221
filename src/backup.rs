//! The file that `dhtstore backup` writes and `dhtstore restore` reads (docs/backup.md): lines of JSON. A header, the
//! small files, a dump as `dhtstore dump` prints it (there is one format of rows), and last the SHA-256 of all before it.
//!
//! Lines rather than an archive: a dump is written before anybody knows how long it gets, which a tar would have to say
//! in front of it, and there is no path in it that could lead out of a directory. Written and read in constant memory.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::{
    config::file::{FILE_NAME as CONFIG, MAX_FILE_BYTES as CONFIG_MAX},
    transport::{
        identity::{FILE_NAME as IDENTITY, MAX_FILE_BYTES as IDENTITY_MAX},
        swarm_key::{FILE_NAME as SWARM_KEY, MAX_FILE_BYTES as SWARM_KEY_MAX},
    },
};
pub use reader::{Part, Reader};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io};
pub use writer::Writer;

/// The version of backups that is written, and the only one there is.
pub const VERSION: u32 = 1;
/// What the first line begins with, and that of no other file.
const BEGINNING: &[u8] = br#"{"dhtstore":"backup","#;
/// `dhtstore` of the last line.
const END: &str = "end-of-backup";
/// Longest line of a small file, in bytes: the largest of them in base64, and room for what stands around it.
const MAX_FILE_LINE: usize = CONFIG_MAX as usize / 3 * 4 + 4096;

/// The first line. Fields are only ever added.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// `backup`
    pub dhtstore: String,
    /// [`VERSION`].
    pub version: u32,
    /// The version of the program that wrote it.
    pub program: String,
    /// Of the identity in it.
    pub peer_id: String,
    /// When the backup began, RFC 3339.
    pub time: String,
    /// The small files in it, in this order.
    pub files: Vec<FileName>,
    /// Whether what others announced and put is in it, too.
    pub records: bool,
    /// The highest sequence number of each own IPNS name, by peer id: one that is forgotten could be used again, and an older
    /// record win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipns_sequences: BTreeMap<String, u64>,
}

/// The small files of a data directory. There are no other names, so none leads elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileName {
    /// The private key, libp2p's protobuf.
    #[serde(rename = "identity.key")]
    Identity,
    /// The key of a private network.
    #[serde(rename = "swarm.key")]
    SwarmKey,
    /// The configuration.
    #[serde(rename = "dhtstore.toml")]
    Config,
}

impl FileName {
    /// Its name in a data directory.
    pub const fn name(self) -> &'static str {
        match self {
            FileName::Identity => IDENTITY,
            FileName::SwarmKey => SWARM_KEY,
            FileName::Config => CONFIG,
        }
    }

    /// Bytes at most, as those say that read these files.
    pub const fn max_bytes(self) -> u64 {
        match self {
            FileName::Identity => IDENTITY_MAX,
            FileName::SwarmKey => SWARM_KEY_MAX,
            FileName::Config => CONFIG_MAX,
        }
    }
}

/// The line of a small file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    file: FileName,
    /// In multibase.
    content: String,
}

/// The last line. It is compared as text, so that a flipped bit in it is noticed as well.
#[derive(Debug, Serialize)]
struct Trailer<'a> {
    dhtstore: &'a str,
    /// Lines before this one.
    lines: u64,
    /// Of all bytes before this line, base16.
    sha256: &'a str,
}

impl Trailer<'_> {
    fn line(lines: u64, sha256: &str) -> Vec<u8> {
        // Our own type with text keys: serialising it into memory cannot fail.
        let mut line = serde_json::to_vec(&Trailer { dhtstore: END, lines, sha256 }).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Why a file is not taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refused.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is no backup: {0}")]
    NotABackup(&'static str),
    /// Of a later version.
    #[error(
        "a backup of version {0}, and this program reads version {VERSION}; install the dhtstore that wrote it, or a newer one"
    )]
    Version(u32),
    /// The last line is missing.
    #[error(
        "the backup ends after {0} lines, without its last one: it was cut off; copy it again, or make another one"
    )]
    CutOff(u64),
    /// A line cannot be read.
    #[error("line {line} of the backup is damaged: {reason}; copy it again, or take another one")]
    Damaged {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The SHA-256 is another one.
    #[error("the backup is damaged: its SHA-256 is not that of its last line; copy it again, or take another one")]
    Checksum,
}
