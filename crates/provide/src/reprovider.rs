//! Runs the plan: finds own CIDs that are due, announces them, and notes each announcement in the store.
//!
//! A CID counts as announced when at least one server has confirmed it. The count of confirmations is stored with it. A
//! CID without a confirmation stays due. Progress is noted page by page, so that a restart continues where the last run
//! ended.

mod scan;

pub use super::deliver::Item;
use super::{deliver::Sweep, plan::cycle::Cycle};
use crate::{
    clock::{Clock, UnixTime},
    kad::{Dht, keyspace::Key},
    network::Network,
    store::provided::Provided,
};
use parking_lot::{Mutex, MutexGuard};
use scan::{Selection, scan};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc};

/// CIDs in a page: about 0.5 MB of memory, and 9 batches for each server of a small network.
const PAGE: usize = 4096;
/// Time between two checks for servers while none is known.
const OFFLINE_RETRY: Duration = Duration::from_secs(5);
/// Time between a wake-up and the sweep. A large `provide` arrives in several requests, and one sweep announces them
/// all.
const SETTLE: Duration = Duration::from_millis(250);
/// Requests of `provide --wait` served at the same time. Further ones wait.
const URGENT_MAX: usize = 4;
/// Full scans of all own CIDs per cycle, made even if nothing suggests that a key is late. A scan takes about a second
/// per million CIDs.
const FULL_SCANS_PER_CYCLE: u32 = 8;

/// The progress of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// CIDs confirmed by at least one server.
    pub announced: u64,
    /// CIDs that no server confirmed. They stay due.
    pub failed: u64,
    /// CIDs to announce, counted at the start.
    pub total: u64,
    /// Distinct servers that have confirmed at least one CID.
    pub servers: u64,
    /// Look-ups made.
    pub lookups: u64,
    /// True if there is no server to announce to.
    pub offline: bool,
}

/// The state of reproviding, for `stat`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// CIDs that are due and not announced yet, as of the last run.
    pub due: u64,
    /// CIDs announced since the start of the process.
    pub announced: u64,
    /// The region announced last, as a string of bits. Empty for the whole keyspace.
    pub last_region: Option<String>,
    /// When the last sweep ended, in Unix seconds.
    pub last_sweep: Option<u32>,
    /// When the CID that waits longest became due, in Unix seconds. `None` if none is late.
    pub behind_since: Option<u32>,
    /// True if no server was known at the last attempt.
    pub offline: bool,
    /// True while a sweep runs.
    pub sweeping: bool,
}

/// Keeps the own CIDs of a store announced. Cheap to clone.
#[derive(Debug)]
pub struct Reprovider<N: Network> {
    inner: Arc<Inner<N>>,
}

impl<N: Network> Clone for Reprovider<N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<N> {
    network: N,
    provided: Provided,
    clock: Arc<dyn Clock>,
    cycle: Cycle,
    interval: Duration,
    status: Mutex<Status>,
    /// Locked during a sweep, so that one runs at a time.
    looked: AsyncMutex<Looked>,
    urgent: Semaphore,
    wake: Notify,
}

/// What the last run of the job leaves for the next.
#[derive(Debug, Default)]
struct Looked {
    /// All keys that were due up to this time have been announced. `None` if all keys must be scanned.
    until: Option<UnixTime>,
    /// When all keys were last scanned.
    full_scan: Option<UnixTime>,
}

impl<N: Network> Reprovider<N> {
    /// Returns a reprovider that announces each CID of `provided` every `interval`.
    pub fn new(network: N, provided: Provided, clock: Arc<dyn Clock>, interval: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                network,
                provided,
                clock,
                cycle: Cycle::new(interval),
                interval,
                status: Mutex::default(),
                looked: AsyncMutex::default(),
                urgent: Semaphore::new(URGENT_MAX),
                wake: Notify::new(),
            }),
        }
    }

    /// Returns the current state.
    pub fn status(&self) -> Status {
        self.lock_status().clone()
    }

    /// Makes [`Self::run`] look for due CIDs soon. Called when CIDs were added.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Announces what is due after each [`Self::wake`], and when the first servers appear while CIDs are due. Never
    /// returns.
    pub async fn run(&self) {
        loop {
            if self.lock_status().offline {
                tokio::select! {
                    () = self.inner.wake.notified() => {}
                    () = tokio::time::sleep(OFFLINE_RETRY) => {}
                }
                if !self.is_online() {
                    continue;
                }
            } else {
                self.inner.wake.notified().await;
                tokio::time::sleep(SETTLE).await;
            }
            self.inner.looked.lock().await.until = None;
            let outcome = self.look().await;
            tracing::debug!(outcome, "looked for CIDs to announce");
        }
    }

    /// Announces the CIDs that are due: one run of the `reprovide` job. Returns a summary for the log.
    pub async fn look(&self) -> String {
        let mut looked = self.inner.looked.lock().await;
        let now = self.inner.clock.wall();
        let cycle = self.inner.cycle;
        let horizon = cycle.horizon(now);
        let full_every = self.inner.interval / FULL_SCANS_PER_CYCLE;
        let scanned_lately = looked.full_scan.is_some_and(|at| at <= now && now.since(at) < full_every);
        let ranges = match looked.until {
            Some(until) if scanned_lately && until <= horizon => cycle.became_due(until, horizon),
            Some(until) if scanned_lately && until.since(now) <= cycle.slack() => Vec::new(),
            _ => {
                looked.full_scan = Some(now);
                scan::everything()
            }
        };
        let due = self.count(&ranges, Selection::Due { at: now, now, cycle }).await;
        self.update(|status| (status.due, status.behind_since) = (due.count, None));
        if due.count == 0 {
            if looked.full_scan == Some(now) {
                looked.until = Some(now);
            }
            self.update(|status| status.offline = false);
            return "no CID is due".into();
        }
        let total = self.count(&ranges, Selection::Due { at: horizon, now, cycle }).await.count;
        let progress = self.sweep(&ranges, Selection::Due { at: horizon, now, cycle }, total, None).await;
        let complete = progress.failed == 0 && !progress.offline;
        looked.until = complete.then_some(horizon);
        if !complete {
            let oldest = due.oldest.map(|at| at.0);
            self.update(|status| status.behind_since = oldest);
        }
        describe(&progress)
    }

    /// Announces all own CIDs now, due or not. Sends its progress to `events`.
    pub async fn announce_all(&self, events: mpsc::Sender<Progress>) -> Progress {
        let _alone = self.inner.looked.lock().await;
        // Includes CIDs that were announced in the current second. Pages go by key, so that no CID is announced twice.
        let selection = Selection::Before(UnixTime(self.inner.clock.wall().0.saturating_add(1)));
        let ranges = scan::everything();
        let total = self.count(&ranges, selection).await.count;
        self.sweep(&ranges, selection, total, Some(events)).await
    }

    /// Announces all CIDs that are due now. Sends its progress to `events`.
    pub async fn announce_due(&self, events: mpsc::Sender<Progress>) -> Progress {
        let mut looked = self.inner.looked.lock().await;
        looked.until = None;
        let now = self.inner.clock.wall();
        let selection = Selection::Due { at: now, now, cycle: self.inner.cycle };
        let ranges = scan::everything();
        let total = self.count(&ranges, selection).await.count;
        self.sweep(&ranges, selection, total, Some(events)).await
    }

    /// Announces some of the own CIDs now, without waiting for a sweep that may be running. Ignores multihashes that
    /// are not among the own CIDs.
    pub async fn announce(&self, multihashes: Vec<Vec<u8>>, events: mpsc::Sender<Progress>) -> Progress {
        let _turn = self.inner.urgent.acquire().await;
        let mut items: Vec<Item> = multihashes
            .into_iter()
            .filter(|multihash| self.inner.provided.contains(multihash))
            .map(|multihash| (Key::for_content(&multihash), multihash))
            .collect();
        items.sort_unstable();
        items.dedup();
        let mut progress = Progress { total: items.len() as u64, ..Progress::default() };
        let mut sweep = Sweep::new(seed(self.inner.clock.as_ref()));
        for page in items.chunks(PAGE) {
            if !self.announce_page(&mut sweep, page, &mut progress).await {
                break;
            }
            let _ = events.try_send(progress);
        }
        progress
    }

    async fn sweep(
        &self,
        ranges: &[(Key, Key)],
        selection: Selection,
        total: u64,
        events: Option<mpsc::Sender<Progress>>,
    ) -> Progress {
        let mut progress = Progress { total, ..Progress::default() };
        let mut sweep = Sweep::new(seed(self.inner.clock.as_ref()));
        let _sweeping = Sweeping::begin(self);
        'ranges: for &(from, to) in ranges {
            let mut cursor = Some(from);
            while let Some(from) = cursor {
                let page = self.page(from, to, selection).await;
                cursor = page.next;
                if page.items.is_empty() {
                    continue;
                }
                if !self.announce_page(&mut sweep, &page.items, &mut progress).await {
                    break 'ranges;
                }
                if let Some(events) = &events {
                    if events.is_closed() {
                        break 'ranges;
                    }
                    let _ = events.try_send(progress);
                }
            }
        }
        progress
    }

    /// Announces a page and notes what was confirmed. Returns false if there is no server.
    async fn announce_page(&self, sweep: &mut Sweep, items: &[Item], progress: &mut Progress) -> bool {
        let report = if self.is_online() { sweep.announce(&self.inner.network, items).await } else { None };
        let Some(report) = report else {
            progress.offline = true;
            self.update(|status| status.offline = true);
            // Wakes `run`, which then checks for servers.
            self.wake();
            return false;
        };
        let done: Vec<(Key, u16)> = items
            .iter()
            .zip(&report.confirmed)
            .filter(|&(_, &confirmed)| confirmed > 0)
            .map(|((key, _), &confirmed)| (*key, confirmed))
            .collect();
        let announced = done.len() as u64;
        let (provided, now) = (self.inner.provided.clone(), self.inner.clock.wall());
        if let Err(error) = tokio::task::spawn_blocking(move || provided.mark_announced(&done, now)).await {
            tracing::warn!(%error, "cannot note announcements in the store; these CIDs stay due");
        }
        progress.announced += announced;
        progress.failed += items.len() as u64 - announced;
        progress.servers = sweep.servers.len() as u64;
        progress.lookups = sweep.lookups as u64;
        self.update(|status| {
            status.offline = false;
            status.announced += announced;
            status.due = status.due.saturating_sub(announced);
            if let Some(region) = report.region {
                let (first, _) = region.bounds();
                status.last_region = Some(
                    (0..usize::from(region.len()))
                        .map(|bit| if first.as_bytes()[bit / 8] & (0x80 >> (bit % 8)) == 0 { '0' } else { '1' })
                        .take(scan::SHOWN_BITS)
                        .collect(),
                );
            }
        });
        true
    }

    async fn page(&self, from: Key, to: Key, selection: Selection) -> scan::Page {
        let provided = self.inner.provided.clone();
        tokio::task::spawn_blocking(move || scan(&provided, from, to, selection, PAGE)).await.unwrap_or_default()
    }

    async fn count(&self, ranges: &[(Key, Key)], selection: Selection) -> scan::Count {
        let (provided, ranges) = (self.inner.provided.clone(), ranges.to_vec());
        tokio::task::spawn_blocking(move || scan::count(&provided, &ranges, selection)).await.unwrap_or_default()
    }

    fn is_online(&self) -> bool {
        Dht::ALL.into_iter().any(|dht| self.inner.network.servers(dht) > 0)
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock_status());
    }

    fn lock_status(&self) -> MutexGuard<'_, Status> {
        self.inner.status.lock()
    }
}

/// Sets `sweeping` in the status until it is dropped, however the sweep ends.
struct Sweeping<'r, N: Network>(&'r Reprovider<N>);

impl<'r, N: Network> Sweeping<'r, N> {
    fn begin(reprovider: &'r Reprovider<N>) -> Self {
        reprovider.update(|status| status.sweeping = true);
        Self(reprovider)
    }
}

impl<N: Network> Drop for Sweeping<'_, N> {
    fn drop(&mut self) {
        let now = self.0.inner.clock.wall().0;
        self.0.update(|status| (status.sweeping, status.last_sweep) = (false, Some(now)));
    }
}

/// Returns a seed for look-up targets. They may be predictable, and must differ from one sweep to the next.
fn seed(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_nanos()).unwrap_or(0) ^ u64::from(clock.wall().0).rotate_left(32)
}

fn describe(progress: &Progress) -> String {
    let Progress { announced, failed, servers, lookups, offline, .. } = progress;
    if *offline && *announced == 0 {
        return "no servers are known; CIDs stay due until there are some".into();
    }
    let mut text = format!("{announced} announced to {servers} servers with {lookups} look-ups");
    if *failed > 0 {
        text += &format!(", {failed} not confirmed by any server");
    }
    if *offline {
        text += ", stopped because no servers were left";
    }
    text
}

#[cfg(test)]
mod tests;
