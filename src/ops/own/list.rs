//! Provides a list of any length. Its parts go to disk one by one; then it is announced and reported as a whole.
//!
//! The report needs to know the CIDs of the list. A list of up to [`ALONE_MAX`] CIDs is kept in memory and announced by
//! itself. A longer list is kept as 8 bytes for each distinct CID: 80 MB for the ten million of `reprovide.max_cids`.
//! Its CIDs are announced together with all others that are due, in one sweep through the keyspace.

use super::{Provided, Verified, Which};
use crate::{
    kad::{Cid, keyspace::Key},
    ops::{Ops, OpsError, underway::Underway},
    provide::reprovider::Progress,
    store::provided,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Most CIDs of a list that is announced by itself.
pub const ALONE_MAX: usize = 4096;
/// Most lists beyond [`ALONE_MAX`] that run with [`Wanted::wait`] at the same time, since each takes memory. Other such
/// lists wait for their turn.
pub const LONG_MAX: usize = 2;
/// CIDs of a list to verify. Each takes a look-up and a request to each of the servers.
const SAMPLE: u64 = 10;
/// Number of new marks to collect before they are merged into the sorted ones: 8 MB.
const FRESH_MAX: usize = 1 << 20;
/// Own CIDs to read at a time.
const PAGE: usize = 4096;

/// What to do with a list besides storing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Announce the CIDs now, and report the result.
    pub wait: bool,
    /// Ask the closest servers of some of the CIDs afterwards whether they hold the record. The value is the length of
    /// the list.
    pub verify: Option<u64>,
}

/// An event after a list is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListEvent {
    /// Progress of announcing.
    Announcing(Progress),
    /// A CID was verified.
    Verified(Verified),
}

/// The result of announcing a list. A CID counts as often as it is in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// The number of CIDs that were announced, now or before.
    pub announced: u64,
    /// The number of CIDs that no server has confirmed. They stay due.
    pub unconfirmed: u64,
    /// The number of distinct servers that confirmed a CID.
    pub servers: u64,
    /// The fewest and the most servers that confirmed a single CID.
    pub confirmed: (u16, u16),
    /// The number of closest servers asked, and of those that name this node. `None` without [`Wanted::verify`].
    pub verified: Option<(usize, usize)>,
}

/// A list that is being provided, see [`Ops::provide_list`].
#[derive(Debug)]
pub struct List {
    ops: Ops,
    wanted: Wanted,
    /// The number of CIDs so far.
    len: u64,
    members: Members,
    sample: Vec<Cid>,
}

/// The CIDs of a list, as far as the report needs them.
#[derive(Debug)]
enum Members {
    /// The CIDs themselves.
    Few(Vec<Cid>),
    /// Their marks, and the permit of this list, held as long as the marks.
    Many { marks: Marks, _turn: OwnedSemaphorePermit },
}

impl Ops {
    /// Begins a list of own CIDs. [`List::add`] adds its parts.
    pub fn provide_list(&self, wanted: Wanted) -> List {
        List { ops: self.clone(), wanted, len: 0, members: Members::Few(Vec::new()), sample: Vec::new() }
    }
}

impl List {
    /// Adds a part, which the caller must bound. Returns once it is on disk, as [`Ops::provide`] does. With
    /// [`Wanted::wait`] a list beyond [`ALONE_MAX`] waits for its turn here.
    ///
    /// # Errors
    /// Those of [`Ops::provide`]. Earlier parts stay.
    pub async fn add(&mut self, cids: Vec<Cid>) -> Result<Provided, OpsError> {
        if let Some(total) = self.wanted.verify {
            let step = (total / SAMPLE).max(1);
            let drawn = (self.len..).zip(&cids).filter(|(index, _)| index.is_multiple_of(step)).map(|(_, cid)| *cid);
            self.sample.extend(drawn.take((SAMPLE as usize).saturating_sub(self.sample.len())));
        }
        self.len += cids.len() as u64;
        if self.wanted.wait {
            self.remember(&cids).await?;
        }
        self.ops.provide(cids).await
    }

    async fn remember(&mut self, cids: &[Cid]) -> Result<(), OpsError> {
        if let Members::Few(few) = &mut self.members {
            if few.len() + cids.len() <= ALONE_MAX {
                few.extend_from_slice(cids);
                return Ok(());
            }
            let turn = Arc::clone(&self.ops.handles.limits.long_lists).acquire_owned().await;
            let turn = turn.map_err(|_| OpsError::TryAgain("the daemon is stopping".to_owned()))?;
            let mut marks = Marks::default();
            marks.add(few);
            self.members = Members::Many { marks, _turn: turn };
        }
        if let Members::Many { marks, .. } = &mut self.members {
            marks.add(cids);
        }
        Ok(())
    }

    /// Announces and verifies the list, as far as [`Wanted`] says. `None` without [`Wanted::wait`].
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn finish(self, events: mpsc::Sender<ListEvent>) -> Result<Option<Outcome>, OpsError> {
        let Self { ops, wanted, len, members, sample } = self;
        if !wanted.wait {
            return Ok(None);
        }
        let which = match &members {
            Members::Few(cids) => Which::These(cids.clone()),
            Members::Many { .. } => Which::Due,
        };
        let mut announcing = ops.announcing(which);
        while let Some(progress) = announcing.event().await {
            // An error means that nobody reads the events. The result is the same, here and below.
            let _ = events.send(ListEvent::Announcing(progress)).await;
        }
        let progress = announcing.outcome().await;
        let provided = ops.handles.store.provided.clone();
        let found = tokio::task::spawn_blocking(move || members.stand(&provided)).await?;
        let mut outcome = found.outcome(len, &progress);
        if wanted.verify.is_some() {
            let (mut asked, mut holding) = (0, 0);
            let mut verifying = Underway::start(|events| ops.verify(sample, events));
            while let Some(verified) = verifying.event().await {
                (asked, holding) = (asked + verified.asked, holding + verified.holding);
                let _ = events.send(ListEvent::Verified(verified)).await;
            }
            verifying.outcome().await?;
            outcome.verified = Some((asked, holding));
        }
        Ok(Some(outcome))
    }
}

impl Members {
    /// Counts the CIDs of the list by their states in the store. Blocks.
    fn stand(self, provided: &provided::Provided) -> Standing {
        let mut standing = Standing::default();
        match self {
            Members::Few(cids) => {
                for own in cids.iter().filter_map(|cid| provided.get(&cid.hash().to_bytes())) {
                    standing.count(&own, 1);
                }
            }
            Members::Many { marks, _turn } => {
                let marks = marks.sorted();
                let mut from = Key::from_bytes([0; 32]);
                loop {
                    let page = provided.range(&from, PAGE);
                    for (key, own) in &page {
                        match marks.times(key) {
                            0 => {}
                            times => standing.count(own, times),
                        }
                    }
                    match page.last().and_then(|(last, _)| successor(last)) {
                        Some(next) if page.len() == PAGE => from = next,
                        _ => break,
                    }
                }
            }
        }
        standing
    }
}

/// Returns the next key of the keyspace; `None` after the last one.
fn successor(key: &Key) -> Option<Key> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(Key::from_bytes(bytes));
        }
    }
    None
}

/// Counts over the CIDs of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Standing {
    /// Those that are own CIDs.
    seen: u64,
    /// Those of them that were announced.
    announced: u64,
    /// The fewest and the most servers that confirmed one.
    confirmed: Option<(u16, u16)>,
}

impl Standing {
    fn count(&mut self, own: &provided::Own, times: u64) {
        self.seen += times;
        self.announced += if own.announced.is_some() { times } else { 0 };
        let (min, max) = self.confirmed.unwrap_or((own.confirmed, own.confirmed));
        self.confirmed = Some((min.min(own.confirmed), max.max(own.confirmed)));
    }

    fn outcome(&self, len: u64, progress: &Progress) -> Outcome {
        let missing = len.saturating_sub(self.announced);
        Outcome {
            announced: self.announced,
            // CIDs that were unprovided since then do not count.
            unconfirmed: if progress.offline { missing } else { missing.min(self.seen.max(progress.failed)) },
            servers: progress.servers,
            confirmed: self.confirmed.unwrap_or_default(),
            verified: None,
        }
    }
}

/// Marks of many CIDs: the first 8 bytes of their keys. Among 400,000 lists of ten million CIDs, about one has two CIDs
/// with the same mark; one of them is then counted once too often.
#[derive(Debug, Default)]
struct Marks {
    /// Ascending, each once.
    sorted: Vec<u64>,
    /// For each mark that is in the list more than once, the number of its further occurrences.
    again: BTreeMap<u64, u64>,
    /// New ones, not sorted yet. Up to [`FRESH_MAX`].
    fresh: Vec<u64>,
}

impl Marks {
    fn add(&mut self, cids: &[Cid]) {
        self.fresh.extend(cids.iter().map(|cid| mark(&Key::for_content(&cid.hash().to_bytes()))));
        if self.fresh.len() >= FRESH_MAX {
            self.sort_in();
        }
    }

    fn sort_in(&mut self) {
        self.sorted.append(&mut self.fresh);
        // Two sorted runs are merged in linear time.
        self.sorted.sort();
        let again = &mut self.again;
        self.sorted.dedup_by(|mark, before| {
            let is_again = mark == before;
            if is_again {
                *again.entry(*mark).or_default() += 1;
            }
            is_again
        });
    }

    fn sorted(mut self) -> Self {
        self.sort_in();
        self
    }

    /// Returns how often the CID of a key is in the list. The marks must be [`Marks::sorted`].
    fn times(&self, key: &Key) -> u64 {
        let mark = mark(key);
        match self.sorted.binary_search(&mark) {
            Ok(_) => 1 + self.again.get(&mark).copied().unwrap_or(0),
            Err(_) => 0,
        }
    }
}

fn mark(key: &Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kad::cids;
    use sha2::{Digest, Sha256};

    fn cid(number: u32) -> Cid {
        let digest = Sha256::digest(number.to_be_bytes());
        cids::parse(&format!("f01551220{digest:x}")).unwrap()
    }

    fn key(number: u32) -> Key {
        Key::for_content(&cid(number).hash().to_bytes())
    }

    #[test]
    fn a_mark_counts_as_often_as_its_cid_is_in_the_list_wherever_it_stands() {
        let mut marks = Marks::default();
        for numbers in [&[1, 2, 1][..], &[3, 1], &[2]] {
            marks.add(&numbers.iter().map(|number| cid(*number)).collect::<Vec<_>>());
            // As if [`FRESH_MAX`] were reached.
            marks.sort_in();
        }
        let marks = marks.sorted();
        assert_eq!([1, 2, 3, 4].map(|number| marks.times(&key(number))), [3, 2, 1, 0]);
        assert_eq!(marks.sorted.len(), 3);
    }

    #[test]
    fn keys_end_with_the_last_one() {
        assert_eq!(successor(&Key::from_bytes([0xff; 32])), None);
        let mut bytes = [0; 32];
        bytes[31] = 0xff;
        let mut next = [0; 32];
        next[30] = 1;
        assert_eq!(successor(&Key::from_bytes(bytes)), Some(Key::from_bytes(next)));
    }

    #[test]
    fn what_nobody_confirmed_is_what_is_missing_unless_it_was_unprovided_meanwhile() {
        let standing = Standing { seen: 5, announced: 3, confirmed: Some((1, 20)) };
        let online = Progress::default();
        assert_eq!(standing.outcome(5, &online).unconfirmed, 2);
        assert_eq!(standing.outcome(5, &online).confirmed, (1, 20));
        let none = Standing::default();
        assert_eq!(none.outcome(5, &online).unconfirmed, 0);
        assert_eq!(none.outcome(5, &Progress { offline: true, ..online }).unconfirmed, 5);
    }
}
