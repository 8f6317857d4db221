//! Records of another time, from a dump: they keep their dates, obey all bounds, and go to the log as chunks of their own
//! seconds, so that replay and garbage collection treat them as if they had been announced here.

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

/// Why the date of a row keeps it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadDate {
    /// Older than its ttl.
    Expired,
    /// Further ahead of the clock than it could be by a difference of clocks.
    Future,
    /// One of the two, unless the clock of this machine proves to be wrong.
    ClockInDoubt,
}

/// The date of a row of a dump: at most now. A minute ahead counts as now, since clocks differ.
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

/// Chunks of one batch of a dump. What is loaded counts once they are [`Chunks::push`]ed.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Under construction, by second.
    open: BTreeMap<u32, (Vec<u8>, u32)>,
    full: Vec<Sealed>,
}

impl Chunks {
    /// Called under a lock of the index: nobody may wait here.
    fn append(&mut self, time: u32, entry: Entry<'_>) {
        let (body, count) = self.open.entry(time).or_default();
        let before = body.len();
        match codec::append(body, &entry) {
            Ok(()) => *count += 1,
            Err(error) => {
                // Cannot happen to these types.
                body.truncate(before);
                tracing::error!(%error, "an entry of the log cannot be encoded");
            }
        }
        if *count >= CHUNK_ENTRIES || body.len() + MAX_MULTIHASH + 16 > CHUNK_BYTES {
            let (body, count) = std::mem::take(self.open.entry(time).or_default());
            self.full.push(Sealed { time, body, count });
        }
    }

    /// To the writer, oldest first. Waits while it is behind.
    pub fn push(mut self, state: &RecordsState) {
        let open = self.open.into_iter().filter(|(_, (_, count))| *count > 0);
        self.full.extend(open.map(|(time, (body, count))| Sealed { time, body, count }));
        self.full.sort_by_key(|chunk| chunk.time);
        self.full.into_iter().for_each(|chunk| state.pending.push(chunk));
    }
}

impl RecordsState {
    /// Keeps garbage collection out while records are loaded: it could move dates of what is not in the log yet.
    pub fn hold_garbage(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.gc.blocking_lock()
    }

    /// The peer of a row, and whether what the row says of it was news; see [`super::book::Book::merge`].
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

    /// Takes a record of `time`, unless what is known of it is not older.
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

    /// Whether loading makes sense at all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn may_load(&self) -> Result<(), StoreError> {
        if self.disk.is_short() {
            return Err(StoreError::Database(self.disk.notes().join("; ").into()));
        }
        match self.health().is_read_only() {
            true => Err(StoreError::Database("takes no writes since an error of the disk; see `dhtstore stat`".into())),
            false => Ok(()),
        }
    }
}
