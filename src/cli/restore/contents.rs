//! Reads and checks a backup.

use super::super::error::{CliError, Result};
use crate::{
    backup::{BackupError, FileName, Header, Part, Reader},
    transport::{identity::Identity, swarm_key::SwarmKey},
};
use indicatif::ProgressBar;
use std::{
    fs::File,
    io::{BufReader, Seek, SeekFrom},
};

/// Size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// Lines between two updates of the progress bar.
const LINES_PER_TICK: u64 = 1024;

/// Contents of a complete backup, without its rows.
#[derive(Debug)]
pub struct Contents {
    pub header: Header,
    pub identity: Identity,
    pub swarm_key: Option<SwarmKey>,
    pub config: Option<String>,
    /// Places of the database that could not be read when the backup was made.
    pub damaged: u64,
    /// Checksum of the backup.
    pub sha256: String,
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::data(error)
    }
}

/// Reads the whole backup and passes each row, with its line end, to `each`. Exit 65 if it is incomplete or contradicts
/// itself.
pub fn read(mut file: &File, bar: &ProgressBar, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<Contents> {
    file.seek(SeekFrom::Start(0)).map_err(BackupError::from)?;
    let mut reader = Reader::begin(BufReader::with_capacity(BUFFER_BYTES, file))?;
    let (mut identity, mut swarm_key, mut config, mut damaged) = (None, None, None, 0);
    let mut lines = 0u64;
    while let Some(part) = reader.next()? {
        match part {
            Part::File(FileName::Identity, content) => identity = Some(content),
            Part::File(FileName::SwarmKey, content) => swarm_key = Some(content),
            Part::File(FileName::Config, content) => config = Some(content),
            Part::Row(line) => each(line)?,
            Part::Dump(_) => {}
            Part::End(end) => damaged = end.damaged,
        }
        lines += 1;
        if lines.is_multiple_of(LINES_PER_TICK) {
            bar.set_position(reader.bytes_read());
        }
    }
    bar.finish_and_clear();
    let header = reader.header().clone();
    let Some(identity) = identity else {
        return Err(CliError::data("it has no identity.key; use another backup"));
    };
    let identity = Identity::from_protobuf(identity).map_err(|reason| {
        CliError::data(format_args!("its identity.key is not a private key ({reason}); use another backup"))
    })?;
    let peer_id = identity.keypair.public().to_peer_id().to_string();
    if peer_id != header.peer_id {
        return Err(CliError::data(format_args!(
            "its identity.key is that of {peer_id}, but its first line names {}; use another backup",
            header.peer_id
        )));
    }
    let swarm_key = swarm_key.map(|content| SwarmKey::parse(&content)).transpose().map_err(|(line, reason)| {
        CliError::data(format_args!("its swarm.key is malformed in line {line}: {reason}; use another backup"))
    })?;
    let config = config
        .map(String::from_utf8)
        .transpose()
        .map_err(|_| CliError::data("its dhtstore.toml is not UTF-8; use another backup"))?;
    let sha256 = reader.sha256().to_owned();
    Ok(Contents { header, identity, swarm_key, config, damaged, sha256 })
}
