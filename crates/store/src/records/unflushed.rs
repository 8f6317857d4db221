//! Chunks and rows of peers written since the last flush that returned. If the disk fails before the next flush, they
//! are written again to the reopened database. Their number is bounded: the writer flushes at the limits below, and
//! nothing is accepted while the database is degraded.

use super::book::Peer;
use crate::StoreError;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The writer flushes at this number of unflushed chunks, 15 MB ...
const CHUNKS: usize = 512;
/// ... or at this number of unflushed rows of peers ...
const PEERS: usize = 65_536;
/// ... or when the oldest of them has waited this long. This costs little, because sled itself flushes as often. But
/// sled does not report when it did, and does not sync the bodies of chunks.
const AGE: Duration = Duration::from_millis(500);

/// The unflushed chunks and rows. See the module.
#[derive(Debug, Default)]
pub struct Unflushed {
    written: Mutex<Written>,
    /// Locked during a flush. Only one may run, because each drops what was there when it began.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Written {
    chunks: VecDeque<(u64, Bytes)>,
    peers: VecDeque<Arc<Peer>>,
    since: Option<Duration>,
}

impl Unflushed {
    /// Notes that a chunk was written.
    pub fn chunk(&self, key: u64, chunk: Vec<u8>, mono: Duration) {
        let mut written = self.written();
        written.since.get_or_insert(mono);
        written.chunks.push_back((key, chunk.into()));
    }

    /// Notes that rows of peers were written.
    pub fn peers(&self, rows: &[Arc<Peer>], mono: Duration) {
        if rows.is_empty() {
            return;
        }
        let mut written = self.written();
        written.since.get_or_insert(mono);
        written.peers.extend(rows.iter().cloned());
    }

    /// Returns true if the writer must flush.
    pub fn is_due(&self, mono: Duration) -> bool {
        let written = self.written();
        let old = written.since.is_some_and(|since| mono.saturating_sub(since) >= AGE);
        old || written.chunks.len() >= CHUNKS || written.peers.len() >= PEERS
    }

    /// Runs `flush`, then drops what was written before it began. `flush` must fsync all of that, and return the time
    /// at which it began.
    ///
    /// # Errors
    /// Those of `flush`. Everything is kept then.
    pub fn flush(&self, flush: impl FnOnce() -> Result<Duration, StoreError>) -> Result<(), StoreError> {
        let _only = self.flushing.lock();
        let (chunks, peers) = {
            let written = self.written();
            (written.chunks.len(), written.peers.len())
        };
        let mono = flush()?;
        let mut written = self.written();
        written.chunks.drain(..chunks);
        written.peers.drain(..peers);
        written.since = (!written.chunks.is_empty() || !written.peers.is_empty()).then_some(mono);
        Ok(())
    }

    /// Returns a copy of everything unflushed: chunks with their keys, and peers.
    pub fn copy(&self) -> (VecDeque<(u64, Bytes)>, Vec<Arc<Peer>>) {
        let written = self.written();
        (written.chunks.clone(), written.peers.iter().cloned().collect())
    }

    /// Puts back what [`Unflushed::copy`] returned, because it could not be written again. A flush may have dropped it
    /// in between.
    pub fn put_back(&self, (chunks, peers): (VecDeque<(u64, Bytes)>, Vec<Arc<Peer>>)) {
        let mut written = self.written();
        chunks.into_iter().rev().for_each(|chunk| written.chunks.push_front(chunk));
        peers.into_iter().rev().for_each(|peer| written.peers.push_front(peer));
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock()
    }
}
