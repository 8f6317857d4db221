//! Calls into sled. They catch every error and every panic, and skip damaged places.
//!
//! On a damaged database any read of sled may fail or panic, and an iterator returns the same error for ever. So a
//! walk seeks past the damage, finds where the readable part begins again, and reports the keys in between as lost.

use super::StoreError;
pub use crate::vital::panic_text;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls sled. A panic is returned as an error.
///
/// # Errors
/// [`StoreError::Database`] with sled's error, or with the text of the panic.
pub fn guard<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(StoreError::Database(e.into())),
        Err(panic) => Err(StoreError::Database(format!("panicked: {}", panic_text(panic.as_ref())).into())),
    }
}

/// Passes each row that can be read to `each`: from the front up to the first damaged place, then from the other end.
/// Works with keys of any form. Returns the first error, or `None` if all rows were read.
pub fn each_row(tree: &sled::Tree, mut each: impl FnMut(&[u8], &[u8])) -> Option<StoreError> {
    let mut last: Option<sled::IVec> = None;
    let mut front = tree.iter();
    let error = loop {
        match guard(|| front.next().transpose()) {
            Ok(Some((key, value))) => {
                each(&key, &value);
                last = Some(key);
            }
            Ok(None) => return None,
            Err(error) => break error,
        }
    };
    let mut back = tree.iter();
    while let Ok(Some((key, value))) = guard(|| back.next_back().transpose()) {
        if last.as_ref().is_some_and(|last| key <= *last) {
            break;
        }
        each(&key, &value);
    }
    Some(error)
}

/// Rows whose keys are numbers, for [`Walk`].
pub trait Rows {
    /// The value of a row.
    type Value;
    /// Returns the first row of `from..=to`.
    fn first(&self, from: u64, to: u64) -> Result<Option<(u64, Self::Value)>, StoreError>;
    /// Returns the last row of `from..=to`.
    fn last(&self, from: u64, to: u64) -> Result<Option<(u64, Self::Value)>, StoreError>;
}

/// A tree whose keys are big-endian integers of `WIDTH` bytes (4 or 8).
#[derive(Clone, Debug)]
pub struct Numbered<const WIDTH: usize>(pub sled::Tree);

impl<const WIDTH: usize> Numbered<WIDTH> {
    /// Returns the key of a number.
    pub fn key(number: u64) -> [u8; WIDTH] {
        let mut key = [0; WIDTH];
        key.copy_from_slice(&number.to_be_bytes()[8 - WIDTH..]);
        key
    }

    fn parse((key, value): (sled::IVec, sled::IVec)) -> Result<(u64, sled::IVec), StoreError> {
        if key.len() != WIDTH {
            return Err(StoreError::Database(format!("key of {} bytes where {WIDTH} are expected", key.len()).into()));
        }
        Ok((key.iter().fold(0, |n, b| n << 8 | u64::from(*b)), value))
    }
}

impl<const WIDTH: usize> Rows for Numbered<WIDTH> {
    type Value = sled::IVec;

    fn first(&self, from: u64, to: u64) -> Result<Option<(u64, sled::IVec)>, StoreError> {
        let row = guard(|| self.0.range(Self::key(from)..=Self::key(to)).next().transpose())?;
        row.map(Self::parse).transpose()
    }

    fn last(&self, from: u64, to: u64) -> Result<Option<(u64, sled::IVec)>, StoreError> {
        let row = guard(|| self.0.range(Self::key(from)..=Self::key(to)).next_back().transpose())?;
        row.map(Self::parse).transpose()
    }
}

/// What a walk finds.
#[derive(Debug)]
pub enum Walked<V> {
    /// A row.
    Row(u64, V),
    /// A range in which no row can be read (first key, last key, error).
    Lost(u64, u64, StoreError),
}

/// A walk over the rows of a range. It seeks once per row, which is cheap because a row is a chunk of 30 kB. The walk
/// also finds rows that are written while it is under way.
#[derive(Debug)]
pub struct Walk<R> {
    rows: R,
    /// The range that is left; `None` at the end.
    rest: Option<(u64, u64)>,
    backwards: bool,
}

impl<R: Rows> Walk<R> {
    /// Walks over `from..=to`, lowest key first.
    pub fn forwards(rows: R, from: u64, to: u64) -> Self {
        Self { rows, rest: (from <= to).then_some((from, to)), backwards: false }
    }

    /// Walks over `from..=to`, highest key first.
    pub fn backwards(rows: R, from: u64, to: u64) -> Self {
        Self { rows, rest: (from <= to).then_some((from, to)), backwards: true }
    }

    /// Reads the row at the near end of `from..=to`.
    fn read(&self, from: u64, to: u64) -> Result<Option<(u64, R::Value)>, StoreError> {
        match self.backwards {
            true => self.rows.last(from, to),
            false => self.rows.first(from, to),
        }
    }

    /// Returns a range without its nearest `n` keys; `None` if nothing is left.
    fn without(&self, (from, to): (u64, u64), n: u64) -> Option<(u64, u64)> {
        let (from, to) = match self.backwards {
            true => (from, to.checked_sub(n)?),
            false => (from.checked_add(n)?, to),
        };
        (from <= to).then_some((from, to))
    }

    /// Returns how many keys to skip so that the rest of the range can be read. Returns `None` if no read succeeds,
    /// however many keys are skipped. Doubles the number until a read succeeds, then narrows it by halving. The result
    /// is at least 1, since the error comes from the near end.
    fn unreadable(&self, range: (u64, u64)) -> Option<u64> {
        let reads = |n: u64| match self.without(range, n) {
            Some((from, to)) => self.read(from, to).is_ok(),
            None => false,
        };
        let width = range.1 - range.0;
        let mut bad = 0;
        let mut good = 1u64;
        while !reads(good) {
            bad = good;
            if good >= width {
                return None;
            }
            good = good.saturating_mul(2).min(width);
        }
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match reads(middle) {
                true => good = middle,
                false => bad = middle,
            }
        }
        Some(good)
    }
}

impl<R: Rows> Iterator for Walk<R> {
    type Item = Walked<R::Value>;

    fn next(&mut self) -> Option<Walked<R::Value>> {
        let range = self.rest?;
        match self.read(range.0, range.1) {
            Ok(None) => {
                self.rest = None;
                None
            }
            Ok(Some((key, value))) => {
                let walked = if self.backwards { range.1.checked_sub(key) } else { key.checked_sub(range.0) };
                self.rest = walked.and_then(|n| self.without(range, n.checked_add(1)?));
                Some(Walked::Row(key, value))
            }
            Err(error) => {
                let lost = self.unreadable(range);
                self.rest = lost.and_then(|n| self.without(range, n));
                let (from, to) = match (lost, self.backwards) {
                    (None, _) => range,
                    (Some(n), false) => (range.0, range.0 + (n - 1)),
                    (Some(n), true) => (range.1 - (n - 1), range.1),
                };
                Some(Walked::Lost(from, to, error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Rows with ranges in which any read fails, as on a damaged page.
    struct Damaged {
        rows: BTreeMap<u64, u64>,
        bad: Vec<(u64, u64)>,
    }

    impl Damaged {
        fn is_bad(&self, key: u64) -> bool {
            self.bad.iter().any(|(from, to)| (*from..=*to).contains(&key))
        }
    }

    impl Rows for &Damaged {
        type Value = u64;
        fn first(&self, from: u64, to: u64) -> Result<Option<(u64, u64)>, StoreError> {
            let row = self.rows.range(from..=to).next();
            // A seek into a damaged page fails even if the next row lies behind it.
            match self.is_bad(from) || row.is_some_and(|(k, _)| self.is_bad(*k)) {
                true => Err(StoreError::Database("damaged".into())),
                false => Ok(row.map(|(k, v)| (*k, *v))),
            }
        }
        fn last(&self, from: u64, to: u64) -> Result<Option<(u64, u64)>, StoreError> {
            let row = self.rows.range(from..=to).next_back();
            match self.is_bad(to) || row.is_some_and(|(k, _)| self.is_bad(*k)) {
                true => Err(StoreError::Database("damaged".into())),
                false => Ok(row.map(|(k, v)| (*k, *v))),
            }
        }
    }

    proptest! {
        #[test]
        fn a_walk_around_one_damaged_place_finds_every_other_row(
            rows in proptest::collection::btree_map(0u64..5000, any::<u64>(), 0..80),
            at in 0u64..5000, wide in 0u64..600, backwards in any::<bool>(),
        ) {
            let tree = Damaged { rows: rows.clone(), bad: vec![(at, at + wide)] };
            let walk = match backwards {
                true => Walk::backwards(&tree, 0, u64::MAX),
                false => Walk::forwards(&tree, 0, u64::MAX),
            };
            let mut found = Vec::new();
            let mut lost = Vec::new();
            for item in walk {
                match item {
                    Walked::Row(key, value) => found.push((key, value)),
                    Walked::Lost(from, to, _) => lost.push((from, to)),
                }
            }
            if backwards {
                found.reverse();
            }
            let readable: Vec<_> = rows.iter().filter(|(k, _)| !tree.is_bad(**k)).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(found, readable);
            for key in rows.keys().filter(|k| tree.is_bad(**k)) {
                prop_assert!(lost.iter().any(|(from, to)| (*from..=*to).contains(key)), "{} not reported", key);
            }
        }

        #[test]
        fn a_walk_over_any_damage_ends(bad in proptest::collection::vec((0u64..5000, 0u64..900), 0..6), all in any::<bool>()) {
            let mut bad: Vec<_> = bad.into_iter().map(|(at, n)| (at, at + n)).collect();
            if all {
                bad.push((0, u64::MAX));
            }
            let tree = Damaged { rows: (0..5000).step_by(7).map(|k| (k, k)).collect(), bad };
            prop_assert!(Walk::forwards(&tree, 0, u64::MAX).count() <= 5000);
            prop_assert!(Walk::backwards(&tree, 0, u64::MAX).count() <= 5000);
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = guard::<()>(|| panic!("page {}", 7)).unwrap_err();
        assert!(error.to_string().contains("page 7"), "{error}");
    }
}
