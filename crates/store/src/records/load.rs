//! Records from a dump. They keep their dates and obey all limits. They go to the log in chunks of their own seconds,
//! so replay and garbage collection treat them like records that were announced here.

use super::{
    RecordsState, Refused,
    announcements::refused,
    book::{BookFull, Peer},
    entry::{Entry, Hashed, MAX_MULTIHASH},
    index::Loaded,
    pending::{CHUNK_BYTES, CHUNK_ENTRIES, Sealed},
    time::{Now, STEP_S},
};
use crate::{StoreError, codec};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::{collections::BTreeMap, sync::Arc};

/// Why the date of a row makes the load skip it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadDate {
    /// Older than its ttl.
    Expired,
    /// More than a minute ahead of the clock: more than a difference between two clocks explains.
    Future,
    /// Expired or in the future, unless the clock of this machine turns out to be wrong.
    ClockInDoubt,
}

/// Returns the date of a row of a dump. A date up to a minute ahead counts as now, because clocks differ.
pub fn date(now: &Now, time: u32, ttl_s: u32) -> Result<u32, BadDate> {
    if i64::from(time) > i64::from(now.log) + STEP_S {
        return Err(if now.may_be_live(time, ttl_s) { BadDate::ClockInDoubt } else { BadDate::Future });
    }
    let time = time.min(now.log);
    match now.is_live(time, ttl_s) {
        true => Ok(time),
        false if now.may_be_live(time, ttl_s) => Err(BadDate::ClockInDoubt),
        false => Err(BadDate::Expired),
    }
}

/// Chunks of one batch of a dump. Their records reach the log with [`Chunks::push`].
#[derive(Debug, Default)]
pub struct Chunks {
    /// Chunks that are not full yet, by second: encoded entries and their number.
    open: BTreeMap<u32, (Vec<u8>, u32)>,
    full: Vec<Sealed>,
}

impl Chunks {
    /// Appends an entry. Runs under a lock of the index, so it must not wait.
    fn append(&mut self, time: u32, entry: Entry<'_>) {
        let (body, count) = self.open.entry(time).or_default();
        let before = body.len();
        match codec::append(body, &entry) {
            Ok(()) => *count += 1,
            Err(error) => {
                // Cannot happen with these types.
                body.truncate(before);
                tracing::error!(%error, "cannot encode an entry of the log; the record is served until a restart");
            }
        }
        if *count >= CHUNK_ENTRIES || body.len() + MAX_MULTIHASH + 16 > CHUNK_BYTES {
            let (body, count) = std::mem::take(self.open.entry(time).or_default());
            self.full.push(Sealed { time, body, count });
        }
    }

    /// Hands the chunks to the writer, oldest first. Waits while the writer is behind.
    pub fn push(mut self, state: &RecordsState) {
        let open = self.open.into_iter().filter(|(_, (_, count))| *count > 0);
        self.full.extend(open.map(|(time, (body, count))| Sealed { time, body, count }));
        self.full.sort_by_key(|chunk| chunk.time);
        self.full.into_iter().for_each(|chunk| state.pending.push(chunk));
    }
}

impl RecordsState {
    /// Keeps garbage collection from running while records are loaded: it could re-date records that are not in the log
    /// yet.
    pub fn hold_garbage(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.gc.blocking_lock()
    }

    /// Merges what a row says of a peer into the address book. Returns the peer, and whether the row said anything new.
    /// See [`super::book::Book::merge`].
    pub fn load_peer(
        &self,
        peer: &PeerId,
        (announced, lists): (u32, [&[Multiaddr]; 2]),
        (newer, dated): (impl FnOnce(u32) -> bool, bool),
        now: &Now,
    ) -> Result<(Arc<Peer>, bool), Refused> {
        let may_enter = !self.index.is_full();
        self.book.merge(peer, (announced, lists), (newer, dated), now, may_enter).map_err(|BookFull| match may_enter {
            true => Refused::PeersFull,
            false => Refused::RecordsFull,
        })
    }

    /// Loads a record dated `time`, unless the index knows an announcement or removal of it that is not older.
    pub fn load(&self, multihash: &[u8], peer: &Peer, time: u32, chunks: &mut Chunks) -> Result<Loaded, Refused> {
        if multihash.len() > MAX_MULTIHASH {
            return Err(Refused::KeyTooLong);
        }
        if self.health().is_read_only() || self.disk.is_short() {
            return Err(Refused::ReadOnly);
        }
        let barred = self.barred(peer, self.disk.is_full());
        let hashed = Hashed::new(multihash);
        let entry = Entry { multihash: hashed, peer: peer.id, removed: false };
        let loaded = self
            .index
            .load(&hashed.key_prefix(), peer.id, time, barred.is_none(), || chunks.append(time, entry))
            .map_err(|full| refused(full, barred))?;
        match loaded {
            Loaded::New => {
                peer.count(1);
                self.metrics.loaded.inc();
            }
            Loaded::Refreshed => self.metrics.loaded.inc(),
            Loaded::Known | Loaded::Removed => {}
        }
        Ok(loaded)
    }

    /// Checks that the store accepts records at all.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the disk is short of space, or if the database is read-only.
    pub fn may_load(&self) -> Result<(), StoreError> {
        if self.disk.is_short() {
            return Err(StoreError::Database(self.disk.notes().join("; ").into()));
        }
        match self.health().is_read_only() {
            true => Err(StoreError::Database(
                "cannot write the log: a write to the disk failed; see `dhtstore stat`".into(),
            )),
            false => Ok(()),
        }
    }
}
