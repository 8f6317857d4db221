//! The node's own CIDs, in keyspace order, with when each was last announced.

use super::StoreError;
use crate::{clock::UnixTime, kad::keyspace::Key};
use cid::Cid;

/// One CID that this node keeps announced.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Own {
    pub cid: Cid,
    pub added: UnixTime,
    pub announced: Option<UnixTime>,
    /// Servers that confirmed the last announcement.
    pub confirmed: u16,
}

/// Our own CIDs. Cheap to clone. One per multihash: the codec last given is kept for display.
#[derive(Clone, Debug)]
pub struct Provided {}

#[expect(unused_variables, missing_docs)]
impl Provided {
    /// Returns once they are flushed to disk: how many are new.
    pub async fn add(&self, cids: Vec<Cid>) -> Result<usize, StoreError> {
        todo!()
    }
    /// Returns once flushed: how many were there.
    pub async fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        todo!()
    }
    pub fn get(&self, multihash: &[u8]) -> Option<Own> {
        todo!()
    }
    pub fn contains(&self, multihash: &[u8]) -> bool {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Up to `limit` in keyspace order, from `from` on.
    pub fn range(&self, from: &Key, limit: usize) -> Vec<(Key, Own)> {
        todo!()
    }
    /// Notes announcements; on disk with the next flush (a crash repeats announcements, which is harmless).
    pub fn mark_announced(&self, done: &[(Key, u16)], at: UnixTime) {
        todo!()
    }
}
