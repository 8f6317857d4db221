//! An own CID, in memory and on disk.

use crate::{clock::UnixTime, kad::Cid, records::entry::position};
use bincode::{Decode, Encode};

/// A position in the keyspace.
pub type Position = [u8; 32];

/// An own CID: this node keeps it announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// The CID as it was last given.
    pub cid: Cid,
    /// When it was first given.
    pub added: UnixTime,
    /// When it was last announced.
    pub announced: Option<UnixTime>,
    /// Number of servers that confirmed the last announcement.
    pub confirmed: u16,
}

/// An own CID on disk.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct OwnRow {
    /// Binary CID.
    pub cid: Box<[u8]>,
    /// Unix seconds.
    pub added: u32,
    /// Unix seconds of the last announcement.
    pub announced: Option<u32>,
    /// Number of servers that confirmed it.
    pub confirmed: u16,
}

impl OwnRow {
    /// Returns the own CID; `None` if the bytes are no CID.
    pub fn own(&self) -> Option<Own> {
        let cid = Cid::try_from(&*self.cid).ok()?;
        let announced = self.announced.map(UnixTime);
        Some(Own { cid, added: UnixTime(self.added), announced, confirmed: self.confirmed })
    }

    /// Returns the CID and its position; `None` if the bytes are no CID.
    pub fn read(&self) -> Option<(Cid, Position)> {
        let cid = Cid::try_from(&*self.cid).ok()?;
        let position = position(&cid.hash().to_bytes());
        Some((cid, position))
    }
}
