//! What the process has promised, compared with what it shows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// Ttl of records, short so that garbage collection always has something to do.
pub const TTL: Duration = Duration::from_secs(15);
/// A record has the time of its chunk, in whole seconds; this margin covers the difference.
const COARSE: Duration = Duration::from_secs(3);
/// Time until a record is written: a second in the open chunk, a quarter for the writer, half a second for sled, and a
/// margin.
const WRITTEN: Duration = Duration::from_millis(2_200);
/// Time until a record is durable, which takes an fsync after the write. sled writes in its own thread, so the fsync
/// that covers the record may be the one half a second later.
const LASTING: Duration = Duration::from_millis(3_000);

/// A record that was announced.
struct Record {
    /// The earliest and the latest time that its date may have. The latest is missing if no answer came.
    sent: Instant,
    taken: Option<Instant>,
    provider: String,
    promised: bool,
    /// True once the process that accepted it is gone: it can promise nothing more.
    ended: bool,
    /// How long before the end of the process it was accepted, if known. This decides whether it is promised.
    before_end: Option<Duration>,
    /// True if it was missing when it was looked for. It must not come back.
    gone: bool,
}

/// An own CID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    There,
    NotThere,
    /// No answer came.
    Unsure,
}

/// The promises about one data directory.
#[derive(Default)]
pub struct Model {
    records: HashMap<String, Record>,
    own: BTreeMap<String, Own>,
    peer: Option<String>,
}

/// What a process shows.
#[derive(Default)]
pub struct Shown {
    pub peer: String,
    /// Multihash and provider.
    pub records: HashMap<String, String>,
    pub own: BTreeSet<String>,
    pub notes: Vec<String>,
    pub damaged: Vec<String>,
}

impl Model {
    /// Notes that records are about to be announced.
    pub fn announcing(&mut self, multihashes: &[String], provider: &str) {
        for multihash in multihashes {
            let (sent, provider) = (Instant::now(), provider.to_owned());
            let record =
                Record { sent, taken: None, provider, promised: false, ended: false, before_end: None, gone: false };
            self.records.insert(multihash.clone(), record);
        }
    }

    /// Notes that they were accepted: a question asked after them was answered.
    pub fn announced(&mut self, multihashes: &[String]) {
        for multihash in multihashes {
            if let Some(record) = self.records.get_mut(multihash) {
                record.taken = Some(Instant::now());
            }
        }
    }

    /// Notes that `provide` or `unprovide` is called with these.
    pub fn asked(&mut self, cids: &[String]) {
        for cid in cids {
            self.own.insert(cid.clone(), Own::Unsure);
        }
    }

    /// Notes that the call has returned.
    pub fn returned(&mut self, cids: &[String], there: bool) {
        for cid in cids {
            self.own.insert(cid.clone(), if there { Own::There } else { Own::NotThere });
        }
    }

    /// Returns the own CIDs that exist, in arbitrary order.
    pub fn own(&self) -> Vec<String> {
        self.own.iter().filter(|(_, own)| **own == Own::There).map(|(cid, _)| cid.clone()).collect()
    }

    /// Notes that the process ended at `at`. Timers of this test fired up to `late` too late, so those of the process
    /// may have, too.
    pub fn killed(&mut self, at: Instant, power: bool, late: Duration) {
        let promise = if power { LASTING } else { WRITTEN } + late;
        for record in self.records.values_mut().filter(|record| !record.ended) {
            record.ended = true;
            let before_end = record.taken.and_then(|taken| at.checked_duration_since(taken));
            record.promised = before_end.is_some_and(|before| before >= promise);
            record.before_end = before_end;
        }
    }

    /// Notes that the process was asked to stop, and did.
    pub fn stopped(&mut self) {
        for record in self.records.values_mut().filter(|record| !record.ended) {
            record.ended = true;
            record.promised = record.taken.is_some();
        }
    }

    /// Compares. Returns the number of promised records and of promised own CIDs that are there. What was not promised
    /// and is missing must stay missing, and what is there must stay.
    pub fn check(&mut self, shown: &Shown, asked: Instant) -> Result<(u64, u64), String> {
        let mut wrong = Vec::new();
        let mut counts = (0, 0);
        if self.peer.get_or_insert_with(|| shown.peer.clone()) != &shown.peer {
            wrong.push(format!("the identity changed to {}", shown.peer));
        }
        for (multihash, record) in &mut self.records {
            let there = shown.records.get(multihash);
            // Without an answer to its announcement, the record may be as new as this question.
            let latest = record.taken.unwrap_or(asked);
            let expired = asked.saturating_duration_since(latest) > TTL + COARSE;
            let lives = record.sent.elapsed() + COARSE < TTL;
            match there {
                Some(_) if record.gone => wrong.push(format!("record {multihash} is back")),
                Some(_) if expired => wrong.push(format!("record {multihash} has outlived its ttl")),
                Some(provider) if *provider != record.provider => {
                    wrong.push(format!("record {multihash} is of {provider}"))
                }
                Some(_) => record.promised = true,
                None if record.promised && lives => wrong.push(format!(
                    "record {multihash}, announced {:?} ago, {:?} before the end, is lost",
                    record.sent.elapsed(),
                    record.before_end
                )),
                None => record.gone = true,
            }
            counts.0 += u64::from(record.promised && lives);
        }
        for multihash in shown.records.keys().filter(|multihash| !self.records.contains_key(*multihash)) {
            wrong.push(format!("nobody announced {multihash}"));
        }
        for (cid, own) in &mut self.own {
            match (*own, shown.own.contains(cid)) {
                (Own::There, false) => wrong.push(format!("own CID {cid} is lost")),
                (Own::NotThere, true) => wrong.push(format!("own CID {cid} is back")),
                (Own::Unsure, there) => *own = if there { Own::There } else { Own::NotThere },
                _ => counts.1 += 1,
            }
        }
        for cid in shown.own.iter().filter(|cid| !self.own.contains_key(*cid)) {
            wrong.push(format!("nobody provided {cid}"));
        }
        wrong.extend(shown.damaged.iter().cloned());
        // A missing record must not come back within four ttls. Remembering it for ever would leak memory in this test.
        self.records.retain(|_, record| record.sent.elapsed() < 4 * TTL);
        match wrong.len() {
            0 => Ok(counts),
            n => Err(format!("{n} wrong, such as: {}", wrong.into_iter().take(6).collect::<Vec<_>>().join("; "))),
        }
    }
}
