//! Builds a data directory from a verified backup.

use super::{
    super::{
        Context,
        error::{CliError, Code, Result, ResultExt},
        output,
    },
    contents::{self, Contents},
};
use crate::{
    clock::SystemClock,
    config::{Config, file::FILE_NAME as CONFIG},
    kad::{keyspace::Key, peer_id::parse_peer_id},
    store::{
        Settings, Store, StoreError,
        data_dir::{Lock, staging::Staging},
        load::{Loader, Report},
        records::Refused,
    },
    transport::{
        identity::{FILE_NAME as IDENTITY, write_private_file},
        swarm_key::FILE_NAME as SWARM_KEY,
    },
};
use serde::{Deserialize, Serialize};
use std::{fs::File, path::Path};

/// Bytes of lines in one batch.
const BATCH_BYTES: usize = 384 << 10;

/// Note stored with the built directory, so that an interrupted last step can be finished.
#[derive(Serialize, Deserialize)]
struct Note {
    sha256: String,
    report: Report,
}

/// Builds the data directory, completely or not at all.
pub async fn build(dir: &Path, file: &File, contents: &Contents, config: &Config, context: &Context) -> Result<Report> {
    let staging = Staging::begin(dir)?;
    let built = fill(staging.path(), file, contents, config, context).await.and_then(|report| {
        let note = Note { sha256: contents.sha256.clone(), report };
        // Our own types with text keys: serialising them cannot fail.
        staging.complete(&serde_json::to_vec(&note).unwrap_or_default())?;
        Ok(note.report)
    });
    match built {
        Ok(report) => {
            staging.finish()?;
            Ok(report)
        }
        Err(error) => {
            // The next restore removes what cannot be removed now.
            let _ = staging.abandon();
            Err(error.context("nothing was restored"))
        }
    }
}

/// Finishes a restore that was interrupted in its last step.
pub fn resume(dir: &Path, note: &[u8], contents: &Contents) -> Result<Report> {
    match serde_json::from_slice::<Note>(note) {
        Ok(note) if note.sha256 == contents.sha256 => {
            Staging::resume(dir)?.finish()?;
            Ok(note.report)
        }
        _ => Err(CliError::cannot_create(format_args!(
            "cannot restore: another backup was partly restored into {}; restore that backup again, or move the \
             directory away",
            dir.display()
        ))),
    }
}

async fn fill(to: &Path, file: &File, contents: &Contents, config: &Config, context: &Context) -> Result<Report> {
    contents.identity.create(&to.join(IDENTITY))?;
    if let Some(key) = &contents.swarm_key {
        key.create(&to.join(SWARM_KEY))?;
    }
    if let Some(text) = &contents.config {
        write_private_file(&to.join(CONFIG), text.as_bytes()).context(CONFIG).code(Code::CannotCreate)?;
    }
    let position = *Key::for_peer(&contents.identity.keypair.public().to_peer_id()).as_bytes();
    let settings = Settings { position, ..config.store_settings() };
    let (path, clock) = (to.to_owned(), SystemClock::new());
    let opened = tokio::task::spawn_blocking(move || {
        let lock = Lock::acquire(&path)?;
        let store = Store::open(&lock, settings, clock)?;
        store.records.wait_replayed();
        Ok((lock, store))
    });
    let (_lock, store) = opened.await.map_err(CliError::other)?.map_err(failed)?;
    let loaded = tokio::task::block_in_place(|| {
        for (peer, sequence) in &contents.header.ipns_sequences {
            let peer = parse_peer_id(peer).map_err(|error| {
                CliError::data(format_args!(
                    "cannot read the first line of the backup: {peer} is not a peer id ({error}); use another backup"
                ))
            })?;
            store.raise_sequence(&peer, *sequence).map_err(failed)?;
        }
        load(&store, file, contents, context)
    });
    let closed = store.close().await.map_err(failed);
    loaded.and_then(|report| closed.map(|()| report))
}

fn load(store: &Store, file: &File, contents: &Contents, context: &Context) -> Result<Report> {
    let mut loader = Loader::new(store.clone());
    let mut report = Report::default();
    let mut batch = Vec::with_capacity(BATCH_BYTES * 2);
    let mut rows = 0;
    let mut take = |batch: &mut Vec<u8>, rows: u64| {
        let first = rows - batch.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let loaded = loader.load(batch, first, true).map_err(failed)?;
        batch.clear();
        for disk in [Refused::ReadOnly, Refused::DiskFull] {
            if loaded.rows(&format!("refused: {disk}")) > 0 {
                return Err(CliError::cannot_create(format_args!(
                    "cannot write: {disk}; fix the disk, then restore again"
                )));
            }
        }
        if let Some((row, error)) = loaded.bad_lines.first() {
            return Err(CliError::data(format_args!(
                "cannot read row {row} of the backup: {error}; use another backup"
            )));
        }
        report.add(loaded);
        Ok(())
    };
    let bar = output::progress(context, file.metadata().ok().map(|meta| meta.len()), "restoring (bytes)");
    let again = contents::read(file, &bar, |line| {
        batch.extend_from_slice(line);
        rows += 1;
        if batch.len() >= BATCH_BYTES { take(&mut batch, rows) } else { Ok(()) }
    })?;
    take(&mut batch, rows)?;
    if again.sha256 != contents.sha256 {
        return Err(CliError::data("cannot use the backup: the file changed while it was read; restore again"));
    }
    Ok(report)
}

/// Names the next step for a failure to build the directory, mostly a lack of disk space.
fn failed(error: StoreError) -> CliError {
    match &error {
        StoreError::Full { .. } => CliError::config(format_args!(
            "{error}; raise reprovide.max_cids in the configuration or with --set, then restore again"
        )),
        StoreError::Database(_) | StoreError::Io { .. } | StoreError::Degraded(_) => CliError::cannot_create(
            format_args!("{error}; free space for the databases and store.reserve, then restore again"),
        ),
        _ => error.into(),
    }
}
