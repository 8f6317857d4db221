//! Loads the rows of a dump (docs/dump.md), into a running store or one that was opened for it.
//!
//! Rows are as untrusted as input from the network: every line is bounded and checked, and every limit of the store
//! holds. A row that the store already has, with the same time or a later one, is skipped. So a dump may be loaded
//! again, and a load that was cut off may be repeated.

mod rows;

use super::{
    Store, StoreError,
    provided::Own,
    records::{
        Refused,
        index::Loaded,
        load::{BadDate, Chunks, date},
        time::Now,
    },
    routing::SavedPeer,
    values,
};
use crate::{clock::UnixTime, kad::Dht};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use rows::{Line, Text};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// Maximum number of peer ids whose text is cached: 10 MB, at some 150 bytes for each. A full cache is cleared.
const PEERS: usize = 1 << 16;

/// Maximum number of bad lines of a batch that are reported one by one; further ones are counted.
pub const BAD_LINES_TOLD: usize = 100;

/// What happened to the rows of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Rows by table and by outcome: `loaded`, `known`, `expired`, `future`, `removed`, `left_out`, or the reason for
    /// which they were refused.
    pub tables: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of lines that are no rows.
    pub bad: u64,
    /// The first of these lines: their number, and what is wrong with them.
    pub bad_lines: Vec<(u64, String)>,
}

impl Report {
    /// Adds another report.
    pub fn add(&mut self, other: Report) {
        for (table, outcomes) in other.tables {
            let sums = self.tables.entry(table).or_default();
            for (outcome, rows) in outcomes {
                *sums.entry(outcome).or_default() += rows;
            }
        }
        self.bad += other.bad;
        let room = BAD_LINES_TOLD.saturating_sub(self.bad_lines.len());
        self.bad_lines.extend(other.bad_lines.into_iter().take(room));
    }

    /// Returns the number of rows with this outcome.
    pub fn rows(&self, outcome: &str) -> u64 {
        self.tables.values().filter_map(|outcomes| outcomes.get(outcome)).sum()
    }

    fn count(&mut self, table: &'static str, outcome: &str) {
        let outcomes = match self.tables.get_mut(table) {
            Some(outcomes) => outcomes,
            None => self.tables.entry(table.to_owned()).or_default(),
        };
        match outcomes.get_mut(outcome) {
            Some(rows) => *rows += 1,
            None => drop(outcomes.insert(outcome.to_owned(), 1)),
        }
    }

    fn bad(&mut self, line: u64, error: String) {
        self.bad += 1;
        if self.bad_lines.len() < BAD_LINES_TOLD {
            self.bad_lines.push((line, error));
        }
    }
}

/// Loads rows, batch by batch. It takes little memory, so it may be kept.
#[derive(Debug)]
pub struct Loader {
    store: Store,
    /// Peer ids by their text.
    peers: HashMap<Box<str>, PeerId>,
    times: rows::Times,
}

/// The rows of a batch, sorted by what has to be done with them.
#[derive(Debug, Default)]
struct Batch {
    report: Report,
    chunks: Chunks,
    own: Vec<Own>,
    routing: BTreeMap<&'static str, Vec<SavedPeer>>,
}

/// The outcome of a row, as reports name it.
type Outcome = Cow<'static, str>;

impl Loader {
    /// Makes a loader for `store`.
    pub fn new(store: Store) -> Self {
        Self { store, peers: HashMap::new(), times: rows::Times::default() }
    }

    /// Loads the lines of a batch; `first` is the number of the first line. With `provided`, own CIDs of the dump
    /// become own CIDs of this node. Blocking, and not for async tasks: it waits for the end of replay, and while the
    /// writer is behind. On disk within 2 s, or with the next flush.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the database takes no writes; [`StoreError::Full`] at the limit of own CIDs.
    pub fn load(&mut self, lines: &[u8], first: u64, provided: bool) -> Result<Report, StoreError> {
        let records = self.store.records.clone();
        records.wait_replayed();
        records.state.may_load()?;
        let no_garbage = records.state.hold_garbage();
        let mut batch = Batch::default();
        let now = records.state.time.now();
        for (number, line) in (first..).zip(lines.split(|byte| *byte == b'\n')) {
            if line.is_empty() {
                continue;
            }
            let taken = rows::read(line, &mut self.times).and_then(|line| self.take(line, provided, &now, &mut batch));
            if let Err(error) = taken {
                batch.report.bad(number, error);
            }
        }
        batch.chunks.push(&records.state);
        drop(no_garbage);
        for is_news in self.store.provided.load(&batch.own)? {
            batch.report.count("provided", if is_news { "loaded" } else { "known" });
        }
        for dht in Dht::ALL {
            let peers = batch.routing.remove(dht.name()).unwrap_or_default();
            for is_news in self.store.routing.merge(dht, peers)? {
                batch.report.count("routing", if is_news { "loaded" } else { "known" });
            }
        }
        Ok(batch.report)
    }

    /// Loads a row, or returns what is wrong with it.
    fn take(&mut self, line: Line<'_>, provided: bool, now: &Now, batch: &mut Batch) -> Result<(), String> {
        let past = |time: UnixTime| UnixTime(time.0.min(now.log));
        let table = line.table();
        let outcome = match line {
            Line::Provider { multihash, provider, addresses, received } => {
                self.provider(&multihash, &provider, &addresses, received, now, &mut batch.chunks)?
            }
            Line::Peer { peer, wan, lan, announced } => self.peer(&peer, [&wan, &lan], announced, now),
            Line::Value { key, value, received } => self.value(&key, &value, received, now),
            Line::Own(own) if provided => {
                batch.own.push(Own { added: past(own.added), announced: own.announced.map(past), ..own });
                return Ok(());
            }
            Line::Routing { dht, peer, heard } => {
                batch.routing.entry(dht.name()).or_default().push(SavedPeer { peer, heard: past(heard) });
                return Ok(());
            }
            Line::Own(_) | Line::Meta => "left_out".into(),
        };
        batch.report.count(table, &outcome);
        Ok(())
    }

    fn provider(
        &mut self,
        multihash: &[u8],
        provider: &str,
        addresses: &[Text<'_>],
        received: u32,
        now: &Now,
        chunks: &mut Chunks,
    ) -> Result<Outcome, String> {
        let peer = self.peer_id(provider)?;
        let state = &self.store.records.state;
        let time = match date(now, received, state.ttl_s) {
            Ok(time) => time,
            Err(bad) => return Ok(of_date(bad)),
        };
        // Addresses are used only if the provider is new, or has announced nothing since.
        let known = state.book.find(&peer).is_some_and(|known| known.announced() >= time);
        let addresses: Vec<Multiaddr> = if known { Vec::new() } else { rows::addresses(addresses)? };
        let merged = state.load_peer(&peer, (time, [&addresses, &[]]), (|at| !known && at < time, false), now);
        let loaded = merged.and_then(|(peer, _)| state.load(multihash, &peer, time, chunks));
        Ok(match loaded {
            Ok(Loaded::New | Loaded::Refreshed) => "loaded".into(),
            Ok(Loaded::Known) => "known".into(),
            Ok(Loaded::Removed) => "removed".into(),
            Err(refused) => of_refusal(refused),
        })
    }

    fn peer(&self, peer: &PeerId, lists: [&[Multiaddr]; 2], announced: u32, now: &Now) -> Outcome {
        let state = &self.store.records.state;
        let announced = match date(now, announced, state.book.address_ttl_s()) {
            Ok(time) => time,
            Err(bad) => return of_date(bad),
        };
        match state.load_peer(peer, (announced, lists), (|at| at <= announced, true), now) {
            Ok((_, true)) => "loaded".into(),
            Ok((_, false)) => "known".into(),
            Err(refused) => of_refusal(refused),
        }
    }

    fn value(&self, key: &[u8], value: &[u8], received: u32, now: &Now) -> Outcome {
        let received = match date(now, received, self.store.values.ttl_s()) {
            Ok(time) => UnixTime(time),
            Err(bad) => return of_date(bad),
        };
        match self.store.values.load(key, value, received) {
            Ok(true) => "loaded".into(),
            Ok(false) => "known".into(),
            Err(values::Refused::Invalid(crate::kad::values::Invalid::Expired)) => "expired".into(),
            Err(refused) => format!("refused: {refused}").into(),
        }
    }

    fn peer_id(&mut self, text: &str) -> Result<PeerId, String> {
        if let Some(peer) = self.peers.get(text) {
            return Ok(*peer);
        }
        let peer = rows::peer_id(text)?;
        if self.peers.len() >= PEERS {
            self.peers.clear();
        }
        self.peers.insert(text.into(), peer);
        Ok(peer)
    }
}

fn of_date(bad: BadDate) -> Outcome {
    match bad {
        BadDate::Expired => "expired".into(),
        BadDate::Future => "future".into(),
        BadDate::ClockInDoubt => {
            "refused: the clock of this machine may be wrong (see gc_paused of `dhtstore stat`); load the file again \
            once the clock is right"
                .into()
        }
    }
}

fn of_refusal(refused: Refused) -> Outcome {
    format!("refused: {refused}").into()
}
