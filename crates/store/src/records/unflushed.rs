//! What was written since the last flush that returned: if the disk fails before the next one, it is written once more
//! to the database that is opened anew. Bounded, since the writer flushes, and nothing is accepted meanwhile.

use super::book::Peer;
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

    /// Runs `flush`, which brings to disk all that was written before, and returns when it began.
    ///
    /// # Errors
    /// That of `flush`: all is kept then.
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

    /// All of it: chunks with their keys, and peers.
    pub fn copy(&self) -> (VecDeque<(u64, Bytes)>, Vec<Arc<Peer>>) {
        let written = self.written();
        (written.chunks.clone(), written.peers.iter().cloned().collect())
    }

    /// What [`Unflushed::copy`] returned could not be written again, though a flush on the way took it for written.
    pub fn put_back(&self, (chunks, peers): (VecDeque<(u64, Bytes)>, Vec<Arc<Peer>>)) {
        let mut written = self.written();
        chunks.into_iter().rev().for_each(|chunk| written.chunks.push_front(chunk));
        peers.into_iter().rev().for_each(|peer| written.peers.push_front(peer));
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock()
    }
}
