//! The routing table (RT-1 to RT-8): k-buckets by common prefix length, seniority, IP diversity, liveness.
//! Times are monotonic durations handed in.

use super::{PeerInfo, keyspace::Key, message::EncodedPeer};
use libp2p::{Multiaddr, PeerId};
use std::{sync::Arc, time::Duration};

/// Bucket size (RT-1).
pub const K: usize = 20;

/// What a table is told to do.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    /// Limit peers per IP group (RT-6): on public DHTs only.
    pub ip_diversity: bool,
}

/// What to do with a peer that might be a server of this DHT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// In the table already; its addresses were refreshed.
    Known,
    /// There is room: probe it with FIND_NODE (RT-8), then [`RoutingTable::admit`] it.
    Probe,
    /// There is no use for it.
    Refused(Refusal),
}

/// Why a peer does not enter the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Refusal {
    Oneself,
    BucketFull,
    NoAddress,
    IpGroupFull,
}

/// One peer of the table.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Entry {
    pub peer: PeerInfo,
    pub key: Key,
    pub encoded: EncodedPeer,
    pub admitted: Duration,
    /// Last time it answered us or asked us something.
    pub heard: Duration,
}

/// The table.
#[derive(Debug)]
pub struct RoutingTable {}

/// An immutable picture of the table for answering from many tasks: sorted by key.
#[derive(Clone, Debug)]
pub struct TableView {}

#[expect(unused_variables, missing_docs)]
impl RoutingTable {
    pub fn new(local: PeerId, settings: Settings) -> Self {
        todo!()
    }
    pub fn offer(&mut self, peer: &PeerInfo, now: Duration) -> Offer {
        todo!()
    }
    /// Enters a peer that answered a probe. A full bucket refuses (seniority, RT-5).
    pub fn admit(&mut self, peer: &PeerInfo, now: Duration) -> Result<(), Refusal> {
        todo!()
    }
    pub fn heard(&mut self, peer: &PeerId, now: Duration) {
        todo!()
    }
    /// Replaces the addresses of a known peer, as identify reports them.
    pub fn set_addresses(&mut self, peer: &PeerId, addrs: &[Multiaddr]) {
        todo!()
    }
    /// Removes a peer that did not answer, or speaks the protocol no more. True if it was there.
    pub fn remove(&mut self, peer: &PeerId) -> bool {
        todo!()
    }
    /// Peers unheard for at least `unheard_for`, to be checked, longest silent first (RT-4, RT-7).
    pub fn due_for_check(&self, now: Duration, unheard_for: Duration) -> Vec<PeerInfo> {
        todo!()
    }
    /// One FIND_NODE key (a preimage) per non-full bucket up to the last non-empty one (RT-7), at most 16.
    pub fn refresh_targets(&self, seed: u64) -> Vec<Vec<u8>> {
        todo!()
    }
    pub fn contains(&self, peer: &PeerId) -> bool {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Entries by common prefix length, closest bucket last.
    pub fn buckets(&self) -> Vec<(u16, Vec<Entry>)> {
        todo!()
    }
    pub fn view(&self) -> Arc<TableView> {
        todo!()
    }
}

#[expect(unused_variables, missing_docs)]
impl TableView {
    pub fn empty() -> Arc<Self> {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The `n` closest to `target`, closest first.
    pub fn closest(&self, target: &Key, n: usize) -> Vec<&Entry> {
        todo!()
    }
    pub fn get(&self, peer: &PeerId) -> Option<&Entry> {
        todo!()
    }
}
