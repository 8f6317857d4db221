//! What was written since the last flush that returned: if the disk fails before the next one, it is written once more
//! to the database that is opened anew. Bounded, since the writer flushes, and nothing is accepted meanwhile.

use super::{Shared, book::Peer, salvage};
use crate::StoreError;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The writer flushes when it holds so many chunks: 15 MB ...
const CHUNKS: usize = 512;
/// ... or so many rows of peers ...
const PEERS: usize = 65_536;
/// ... or when the first of them has waited for so long. sled flushes as often by itself, so that this costs little, but
/// neither tells when it did nor syncs the bodies of chunks.
const AGE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub struct Unflushed {
    written: Mutex<Written>,
    /// One flush at a time: each forgets what was there when it began.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Written {
    chunks: VecDeque<(u64, Bytes)>,
    peers: VecDeque<Arc<Peer>>,
    since: Option<Duration>,
}

impl Unflushed {
    /// A chunk was written.
    pub fn chunk(&self, key: u64, chunk: Vec<u8>, mono: Duration) {
        let mut written = self.written();
        written.since.get_or_insert(mono);
        written.chunks.push_back((key, chunk.into()));
    }

    /// Rows of peers were written.
    pub fn peers(&self, rows: &[Arc<Peer>], mono: Duration) {
        if rows.is_empty() {
            return;
        }
        let mut written = self.written();
        written.since.get_or_insert(mono);
        written.peers.extend(rows.iter().cloned());
    }

    /// Whether the writer should flush.
    pub fn is_due(&self, mono: Duration) -> bool {
        let written = self.written();
        let old = written.since.is_some_and(|since| mono.saturating_sub(since) >= AGE);
        old || written.chunks.len() >= CHUNKS || written.peers.len() >= PEERS
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock()
    }
}

impl Shared {
    /// Everything written before to disk, fsynced.
    pub fn flush_log(&self) -> Result<(), StoreError> {
        let _only = self.unflushed.flushing.lock();
        let (chunks, peers) = {
            let written = self.unflushed.written();
            (written.chunks.len(), written.peers.len())
        };
        let mono = self.time.now().mono;
        self.log.flush()?;
        let mut written = self.unflushed.written();
        written.chunks.drain(..chunks);
        written.peers.drain(..peers);
        written.since = (!written.chunks.is_empty() || !written.peers.is_empty()).then_some(mono);
        Ok(())
    }

    /// Writes to a database that was opened anew what the last one may not have brought to disk; everything that memory
    /// knows, if it holds `nothing`.
    pub fn write_anew(&self, nothing: bool) -> Result<(), StoreError> {
        let (chunks, peers) = {
            let written = self.unflushed.written();
            let peers: Vec<_> = written.peers.iter().cloned().collect();
            (written.chunks.clone(), peers)
        };
        self.log.reopened()?;
        match nothing {
            true => self.book.write_all_again(),
            false => self.book.write_again(&peers),
        }
        let outcome = super::writer::write_peers(self)
            .and_then(|()| chunks.iter().try_for_each(|(key, chunk)| self.log.put_back(*key, chunk, chunk)))
            .and_then(|()| self.flush_log());
        if outcome.is_err() {
            // A flush on the way has taken them for written.
            let mut written = self.unflushed.written();
            chunks.into_iter().rev().for_each(|chunk| written.chunks.push_front(chunk));
            peers.into_iter().rev().for_each(|peer| written.peers.push_front(peer));
        }
        self.log.look_at_ends();
        outcome?;
        if nothing {
            salvage::run(self);
        }
        Ok(())
    }
}
