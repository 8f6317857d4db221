//! What the process has promised, and whether it is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// How long a record lives. Short, so that garbage collection always has something to do.
pub const TTL: Duration = Duration::from_secs(15);
/// A record's time is that of its chunk, in whole seconds.
const COARSE: Duration = Duration::from_secs(3);
/// On disk after a second in the open chunk, the writer's quarter and sled's half; and some more.
const WRITTEN: Duration = Duration::from_millis(2_200);
/// Lasting after the fsync behind that: sled writes in a thread of its own, so it may be the one half a second later.
const LASTING: Duration = Duration::from_millis(3_000);

/// A record that was announced.
struct Record {
    /// The earliest and the latest that it may date from; no latest where no answer came.
    sent: Instant,
    taken: Option<Instant>,
    provider: String,
    promised: bool,
    /// The process that took it is gone: what it did not promise then it never will.
    ended: bool,
    /// Why it is promised: how long before the end of the process it was taken, if that is known.
    before_end: Option<Duration>,
    /// Was not there when it was looked for. It must not be seen again.
    gone: bool,
}

/// An own CID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    There,
    NotThere,
    /// The answer did not come any more.
    Unsure,
}

/// Of one data directory.
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
    /// Records are about to be announced.
    pub fn announcing(&mut self, multihashes: &[String], provider: &str) {
        for multihash in multihashes {
            let (sent, provider) = (Instant::now(), provider.to_owned());
            let record =
                Record { sent, taken: None, provider, promised: false, ended: false, before_end: None, gone: false };
            self.records.insert(multihash.clone(), record);
        }
    }

    /// They were taken: an answer to what was asked after them has come.
    pub fn announced(&mut self, multihashes: &[String]) {
        for multihash in multihashes {
            if let Some(record) = self.records.get_mut(multihash) {
                record.taken = Some(Instant::now());
            }
        }
    }

    /// `provide` or `unprovide` of these is asked for.
    pub fn asked(&mut self, cids: &[String]) {
        for cid in cids {
            self.own.insert(cid.clone(), Own::Unsure);
        }
    }

    /// It has returned.
    pub fn returned(&mut self, cids: &[String], there: bool) {
        for cid in cids {
            self.own.insert(cid.clone(), if there { Own::There } else { Own::NotThere });
        }
    }

    /// Own CIDs that are there, in an order of no meaning.
    pub fn own(&self) -> Vec<String> {
        self.own.iter().filter(|(_, own)| **own == Own::There).map(|(cid, _)| cid.clone()).collect()
    }

    /// The process ended at `at`; the clock of this test was late by `late`, so others' may have been.
    pub fn killed(&mut self, at: Instant, power: bool, late: Duration) {
        let promise = if power { LASTING } else { WRITTEN } + late;
        for record in self.records.values_mut().filter(|record| !record.ended) {
            record.ended = true;
            let before_end = record.taken.and_then(|taken| at.checked_duration_since(taken));
            record.promised = before_end.is_some_and(|before| before >= promise);
            record.before_end = before_end;
        }
    }

    /// The process was asked to stop, and did.
    pub fn stopped(&mut self) {
        for record in self.records.values_mut().filter(|record| !record.ended) {
            record.ended = true;
            record.promised = record.taken.is_some();
        }
    }

    /// Compares; how many records and own CIDs were promised and are there. What was not promised and is not there has
    /// gone for good, and what is there stays.
    pub fn check(&mut self, shown: &Shown, asked: Instant) -> Result<(u64, u64), String> {
        let mut wrong = Vec::new();
        let mut counts = (0, 0);
        if self.peer.get_or_insert_with(|| shown.peer.clone()) != &shown.peer {
            wrong.push(format!("the identity changed to {}", shown.peer));
        }
        for (multihash, record) in &mut self.records {
            let there = shown.records.get(multihash);
            // Older when it was asked, and younger when the answer came.
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
        // What is gone must stay gone for a while: to remember it for ever would be a leak of this test.
        self.records.retain(|_, record| record.sent.elapsed() < 4 * TTL);
        match wrong.len() {
            0 => Ok(counts),
            n => Err(format!("{n} wrong, such as: {}", wrong.into_iter().take(6).collect::<Vec<_>>().join("; "))),
        }
    }
}
