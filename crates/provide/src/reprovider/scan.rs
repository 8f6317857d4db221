//! Reads through the own CIDs for those to announce, page by page. Blocks; uses constant memory.

use super::Item;
use crate::{
    clock::UnixTime,
    kad::keyspace::Key,
    plan::cycle::Cycle,
    store::provided::{Own, Provided},
};

/// Rows read from the store at a time.
const READ: usize = 1024;
/// Most bits of a region that `stat` shows. A region of a single key has 256.
pub(super) const SHOWN_BITS: usize = 16;

/// Selects the CIDs to announce.
#[derive(Clone, Copy, Debug)]
pub(super) enum Selection {
    /// The CIDs that are due at a time.
    Due { at: UnixTime, now: UnixTime, cycle: Cycle },
    /// The CIDs that have not been announced since a time.
    Before(UnixTime),
}

impl Selection {
    fn wants(&self, key: &Key, own: &Own) -> bool {
        match self {
            Selection::Due { at, now, cycle } => cycle.is_due(key, own.announced, *at, *now),
            Selection::Before(moment) => own.announced.is_none_or(|announced| announced < *moment),
        }
    }

    /// Returns when a selected CID became due.
    fn due_since(&self, key: &Key, own: &Own) -> UnixTime {
        match self {
            Selection::Due { cycle, .. } => cycle.next_due(key, own.announced).max(own.added),
            Selection::Before(_) => own.announced.unwrap_or(own.added),
        }
    }
}

/// CIDs to announce, and the key to continue from.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub items: Vec<Item>,
    pub next: Option<Key>,
}

/// The count of selected CIDs, and when the oldest became due.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub count: u64,
    pub oldest: Option<UnixTime>,
}

/// Returns the whole keyspace as one range.
pub(super) fn everything() -> Vec<(Key, Key)> {
    vec![(Key::from_bytes([0; 32]), Key::from_bytes([0xff; 32]))]
}

/// Returns up to `limit` selected CIDs from `from` to `to`, both included, in keyspace order.
pub(super) fn scan(provided: &Provided, from: Key, to: Key, selection: Selection, limit: usize) -> Page {
    let mut page = Page::default();
    page.next = visit(provided, from, to, &mut |key, own| {
        if selection.wants(key, own) {
            page.items.push((*key, own.cid.hash().to_bytes()));
        }
        page.items.len() < limit
    });
    page
}

/// Counts the selected CIDs in `ranges`.
pub(super) fn count(provided: &Provided, ranges: &[(Key, Key)], selection: Selection) -> Count {
    let mut found = Count::default();
    for &(from, to) in ranges {
        visit(provided, from, to, &mut |key, own| {
            if selection.wants(key, own) {
                found.count += 1;
                let since = selection.due_since(key, own);
                found.oldest = Some(found.oldest.map_or(since, |oldest| oldest.min(since)));
            }
            true
        });
    }
    found
}

/// Visits rows until `each` returns false. Returns the key after the last row visited, or `None` at the end.
fn visit(provided: &Provided, from: Key, to: Key, each: &mut dyn FnMut(&Key, &Own) -> bool) -> Option<Key> {
    let mut cursor = Some(from);
    while let Some(from) = cursor {
        let rows = provided.range(&from, READ);
        cursor = rows.last().and_then(|(key, _)| successor(key));
        for (key, own) in &rows {
            if *key > to {
                return None;
            }
            if !each(key, own) {
                return successor(key).filter(|next| *next <= to);
            }
        }
    }
    None
}

/// Returns the next key, or `None` after the last one.
fn successor(key: &Key) -> Option<Key> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (next, overflow) = byte.overflowing_add(1);
        *byte = next;
        if !overflow {
            return Some(Key::from_bytes(bytes));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_carries_and_ends_at_the_last_key() {
        let mut bytes = [0; 32];
        (bytes[30], bytes[31]) = (7, 0xff);
        let next = *successor(&Key::from_bytes(bytes)).unwrap().as_bytes();
        assert_eq!((next[30], next[31]), (8, 0));
        assert_eq!(successor(&Key::from_bytes([0xff; 32])), None);
    }
}
