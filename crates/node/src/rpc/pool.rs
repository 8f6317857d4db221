//! A pool of streams kept for the next request, at most one per peer and DHT.

use crate::kad::Dht;
use futures::{AsyncRead, AsyncWriteExt, FutureExt};
use libp2p::{PeerId, Stream};
use parking_lot::Mutex;
use std::{collections::HashMap, future::poll_fn, pin::Pin, sync::Arc, time::Duration};
use tokio::{sync::Mutex as AsyncMutex, sync::MutexGuard, time::timeout};

/// Time after which an idle stream is ended: it keeps its connection open, and js ends it after 10 s anyway.
const IDLE: Duration = Duration::from_secs(30);

/// Time between two passes that end idle streams.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Most streams in the pool. Beyond it, each request opens a stream of its own.
const MAX_SLOTS: usize = 4096;

/// Time-out of ending a stream, which may take a round trip. No task waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A place for one stream. Its lock serialises the requests to a peer.
#[derive(Debug, Default)]
pub(super) struct Slot {
    kept: AsyncMutex<Kept>,
}

impl Slot {
    pub(super) async fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().await
    }
}

/// The stream in a place, and when it was last used.
#[derive(Debug, Default)]
pub(super) struct Kept {
    stream: Option<Stream>,
    used: Duration,
}

impl Kept {
    /// Takes the stream out, so that it is dropped if the exchange is abandoned. Returns `None` if there is none, or if
    /// the other side has ended it.
    pub(super) fn take(&mut self) -> Option<Stream> {
        let mut stream = self.stream.take()?;
        // An idle stream must be silent: bytes, the end and an error all make it useless.
        let mut byte = [0; 1];
        let silent = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut byte)).now_or_never().is_none();
        silent.then_some(stream)
    }

    /// Keeps a stream for the next request.
    pub(super) fn put(&mut self, stream: Stream, now: Duration) {
        self.stream = Some(stream);
        self.used = now;
    }
}

/// Pooled streams by peer and DHT.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Mutex<HashMap<(PeerId, Dht), Arc<Slot>>>,
}

impl Pool {
    /// Returns the place for streams to a peer in a DHT. If the pool is full, the place is new and only the caller has
    /// it.
    pub(super) fn slot(&self, of: (PeerId, Dht), now: Duration) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&of) {
            return slot.clone();
        }
        let slot = Arc::<Slot>::default();
        if slots.len() >= MAX_SLOTS {
            sweep(&mut slots, now, IDLE / 4);
        }
        if slots.len() < MAX_SLOTS {
            slots.insert(of, slot.clone());
        }
        slot
    }

    /// Ends streams that were idle for too long.
    pub(super) fn sweep(&self, now: Duration) {
        sweep(&mut self.slots.lock(), now, IDLE);
    }
}

fn sweep(slots: &mut HashMap<(PeerId, Dht), Arc<Slot>>, now: Duration, idle: Duration) {
    slots.retain(|_, slot| {
        // Under the lock of the map no other task can get a new reference.
        if Arc::strong_count(slot) > 1 {
            return true;
        }
        let Ok(mut kept) = slot.kept.try_lock() else { return true };
        if kept.stream.is_some() && now.saturating_sub(kept.used) < idle {
            return true;
        }
        if let Some(stream) = kept.stream.take() {
            end(stream);
        }
        false
    });
}

/// Ends a stream whose work is done.
pub(super) fn end(mut stream: Stream) {
    tokio::spawn(async move {
        let _ = timeout(CLOSE_TIMEOUT, stream.close()).await;
    });
}
