//! The file that `dhtstore backup` writes and `dhtstore restore` reads (docs/backup.md). It has lines of JSON: a
//! header, the small files, a dump as `dhtstore dump` prints it, and last the SHA-256 of everything before.
//!
//! It is not a tar archive, for two reasons. A tar archive needs the length of the dump before the dump itself, but the
//! length is known only at the end. And a tar archive has paths, which could lead out of the directory. The file is
//! written and read in constant memory.

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
use std::{collections::BTreeMap, error::Error, io};
pub use writer::Writer;

/// The version of the format. There is no other yet.
pub const VERSION: u32 = 1;
/// The beginning of the first line. No other file begins so.
const BEGINNING: &[u8] = br#"{"dhtstore":"backup","#;
/// The field `dhtstore` of the last line.
const END: &str = "end-of-backup";
/// Longest line of a small file, in bytes: the largest file in base64, and room for the JSON around it.
const MAX_FILE_LINE: usize = CONFIG_MAX as usize / 3 * 4 + 4096;

/// The first line. Fields are only ever added.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// `backup`
    pub dhtstore: String,
    /// [`VERSION`].
    pub version: u32,
    /// The version of the program that wrote the backup.
    pub program: String,
    /// The peer id of the identity in the backup.
    pub peer_id: String,
    /// Time at which the backup began, in RFC 3339.
    pub time: String,
    /// The small files in the backup, in this order.
    pub files: Vec<FileName>,
    /// Whether the backup has records and values of other peers, too.
    pub records: bool,
    /// The highest sequence number of each own IPNS name, by peer id. If it were lost, it could be used again, and an
    /// older record could win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipns_sequences: BTreeMap<String, u64>,
}

/// The small files of a data directory. No other names are accepted, so no name leads out of the directory.
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
    /// Returns its name in a data directory.
    pub const fn name(self) -> &'static str {
        match self {
            FileName::Identity => IDENTITY,
            FileName::SwarmKey => SWARM_KEY,
            FileName::Config => CONFIG,
        }
    }

    /// Returns its maximum size in bytes: the limit of the code that reads the file.
    pub const fn max_bytes(self) -> u64 {
        match self {
            FileName::Identity => IDENTITY_MAX,
            FileName::SwarmKey => SWARM_KEY_MAX,
            FileName::Config => CONFIG_MAX,
        }
    }
}

/// The line with a small file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    file: FileName,
    /// The bytes of the file, in multibase.
    content: String,
}

/// The last line. The reader compares it as text, so that a flipped bit in it is found as well.
#[derive(Debug, Serialize)]
struct Trailer<'a> {
    dhtstore: &'a str,
    /// The number of lines before this one.
    lines: u64,
    /// SHA-256 of all bytes before this line, in base16.
    sha256: &'a str,
}

impl Trailer<'_> {
    fn line(lines: u64, sha256: &str) -> Vec<u8> {
        // Serialising a type with text keys into memory cannot fail.
        let mut line = serde_json::to_vec(&Trailer { dhtstore: END, lines, sha256 }).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system returned an error.
    #[error("cannot read the backup: {0}")]
    Read(#[from] io::Error),
    /// The file is something else.
    #[error("this is not a backup: {0}")]
    NotABackup(&'static str),
    /// The backup has a later version.
    #[error(
        "cannot read a backup of version {0}: this program knows version {VERSION}; \
         install the dhtstore that wrote it, or a newer one"
    )]
    Version(u32),
    /// The last line is missing.
    #[error("the backup is cut off: it ends after {0} lines, without its last one; copy it again, or make another one")]
    CutOff(u64),
    /// A line cannot be read.
    #[error("line {line} of the backup is damaged: {reason}; copy it again, or use another one")]
    Damaged {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        reason: Box<dyn Error + Send + Sync>,
    },
    /// The SHA-256 differs.
    #[error("the backup is damaged: its SHA-256 is not that of its last line; copy it again, or use another one")]
    Checksum,
}
