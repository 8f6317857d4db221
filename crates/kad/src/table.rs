//! The routing table (RT-1 to RT-8): k-buckets by common prefix length, seniority, IP diversity, liveness. All times
//! are monotonic and come from the caller.

mod view;

pub use view::TableView;

use super::{
    PeerInfo,
    keyspace::{Key, MAX_PREIMAGE_CPL, preimage},
    message::EncodedPeer,
    scope::{IpGroup, IpGroups, Reach, reach},
};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Bucket size (RT-1).
pub const K: usize = 20;
/// Maximum number of peers of one IP group in the table (RT-6).
pub const MAX_PER_IP_GROUP: usize = 3;
/// Maximum number of peers of one IP group in a bucket (RT-6).
pub const MAX_PER_IP_GROUP_AND_BUCKET: usize = 2;
/// Maximum number of addresses kept per peer: twice as many as a server on several transports and both IP versions
/// announces.
pub const MAX_ADDRESSES: usize = 16;
/// Maximum number of targets of one refresh: one for each of the buckets 0 to [`MAX_PREIMAGE_CPL`].
pub const MAX_REFRESH_TARGETS: usize = MAX_PREIMAGE_CPL as usize + 1;

/// The settings of a table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// If set, the number of peers per IP group is limited (RT-6). For public DHTs.
    pub ip_diversity: Option<IpGroups>,
}

/// What to do with a peer that might be a server of this DHT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It is in the table already. Its new addresses have been added, as far as there is room.
    Known,
    /// There is room: probe it with FIND_NODE (RT-8), then [`RoutingTable::admit`] it.
    Probe,
    /// Ignore it: the table cannot take it.
    Refused(Refusal),
}

/// Why a peer does not enter the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// It is the local node.
    #[error("the local node itself")]
    Oneself,
    /// Its bucket holds k peers, which stay as long as they answer (RT-5).
    #[error("bucket is full")]
    BucketFull,
    /// It has no address (RT-3).
    #[error("no address")]
    NoAddress,
    /// One of its addresses belongs to an IP group with enough peers already (RT-6).
    #[error("enough peers of its IP group")]
    IpGroupFull,
}

/// One peer of the table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The peer with at most [`MAX_ADDRESSES`] addresses: first the one at which it answered last (RT-4), then those
    /// that it claims.
    pub peer: PeerInfo,
    /// Its place in the keyspace.
    pub key: Key,
    /// `peer` encoded for answers.
    pub encoded: EncodedPeer,
    /// When it entered the table; decides seniority.
    pub admitted: Duration,
    /// Last time it answered us or asked us something. In a [`TableView`], as of the last change of the table.
    pub heard: Duration,
}

/// A place in a bucket. The times are separate from the shared entry because every request changes them.
#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    heard: Duration,
    /// Last time it answered at the first of its addresses.
    reached: Duration,
    /// The IP groups in which it counts: those of its addresses, and `seen`.
    groups: BTreeSet<IpGroup>,
    /// The IP groups of its connections when it entered.
    seen: BTreeSet<IpGroup>,
}

/// The routing table of a node: at most [`K`] peers for each common prefix length 0..=255.
///
/// The caller must filter addresses by scope before it passes them (RT-3).
#[derive(Debug)]
pub struct RoutingTable {
    local_key: Key,
    settings: Settings,
    /// By common prefix length; no bucket is empty. Each is ordered by seniority.
    buckets: BTreeMap<u16, Vec<Slot>>,
    /// Built on the first request after a change.
    view: OnceLock<Arc<TableView>>,
}

impl RoutingTable {
    /// Creates the empty table of the node `local`.
    pub fn new(local: PeerId, settings: Settings) -> Self {
        Self { local_key: Key::for_peer(&local), settings, buckets: BTreeMap::new(), view: OnceLock::new() }
    }

    /// Returns whether to probe a peer. Adds new addresses of a known peer after those held, but never replaces any:
    /// the source may be wrong or lie (compare [`RoutingTable::set_addresses`]).
    ///
    /// Does not change when the peer was last heard.
    pub fn offer(&mut self, peer: &PeerInfo, _now: Duration) -> Offer {
        if self.add_addresses(peer) {
            return Offer::Known;
        }
        match self.place_for(peer, &[]) {
            Ok(_) => Offer::Probe,
            Err(refusal) => Offer::Refused(refusal),
        }
    }

    /// Adds a peer that answered a probe at the first of its addresses. A full bucket refuses it (seniority, RT-5). If
    /// the peer is in the table already, does the same as [`RoutingTable::offer`] and [`RoutingTable::heard`].
    pub fn admit(&mut self, peer: &PeerInfo, now: Duration) -> Result<(), Refusal> {
        self.admit_seen_at(peer, &[], now)
    }

    /// Does the same as [`RoutingTable::admit`] for a peer whose open connections come from, or lead to, `seen_at`. For
    /// IP diversity (RT-6), public addresses in `seen_at` count like those of the peer, because a peer may invent its
    /// addresses, and names have no IP. Private ones do not count: a whole network may be behind one private address of
    /// a proxy.
    pub fn admit_seen_at(&mut self, peer: &PeerInfo, seen_at: &[Multiaddr], now: Duration) -> Result<(), Refusal> {
        if self.add_addresses(peer) {
            self.heard(&peer.id, now);
            return Ok(());
        }
        let (key, cpl) = self.place_for(peer, seen_at)?;
        let addrs = bounded(&peer.addrs);
        let seen = self.public_groups(seen_at);
        let slot = Slot {
            groups: self.groups(&addrs).union(&seen).copied().collect(),
            seen,
            heard: now,
            reached: now,
            entry: Arc::new(Entry {
                encoded: EncodedPeer::of_server(&peer.id, &addrs),
                peer: PeerInfo { id: peer.id, addrs },
                key,
                admitted: now,
                heard: now,
            }),
        };
        self.buckets.entry(cpl).or_default().push(slot);
        self.view = OnceLock::new();
        Ok(())
    }

    /// Records that the peer answered us or asked us something.
    pub fn heard(&mut self, peer: &PeerId, now: Duration) {
        if let Some(slot) = self.slot_mut(peer) {
            slot.heard = slot.heard.max(now);
        }
    }

    /// Records that a known peer answered at `addr`, an address that we dialled (RT-4). The address becomes the first
    /// one, unless other peers have filled its IP group (RT-6).
    pub fn reached(&mut self, peer: &PeerId, addr: &Multiaddr, now: Duration) {
        let Some(slot) = self.slot_mut(peer) else { return };
        slot.reached = slot.reached.max(now);
        let held = slot.entry.peer.addrs.clone();
        if held.first() != Some(addr) && !self.allowed_addresses(peer, std::slice::from_ref(addr)).is_empty() {
            self.replace_addresses(peer, bounded(&[std::slice::from_ref(addr), &held].concat()));
        }
    }

    /// Replaces the addresses that a known peer claims, as reported by identify. The address at which it answered last
    /// stays first: a claim does not replace a verified address (RT-4), and a check will find out if that address stops
    /// working.
    ///
    /// Leaves out addresses of IP groups that other peers have filled (RT-6).
    pub fn set_addresses(&mut self, peer: &PeerId, addrs: &[Multiaddr]) {
        let Some(slot) = self.slot(peer) else { return };
        let verified: Vec<Multiaddr> = slot.entry.peer.addrs.first().cloned().into_iter().collect();
        let allowed = self.allowed_addresses(peer, addrs);
        if !allowed.is_empty() {
            self.replace_addresses(peer, bounded(&[verified, allowed].concat()));
        }
    }

    /// Removes a peer that did not answer, or no longer speaks the protocol. Returns whether it was in the table.
    pub fn remove(&mut self, peer: &PeerId) -> bool {
        let cpl = self.cpl(&Key::for_peer(peer));
        let Some(bucket) = self.buckets.get_mut(&cpl) else { return false };
        let Some(at) = bucket.iter().position(|slot| slot.entry.peer.id == *peer) else { return false };
        bucket.remove(at);
        if bucket.is_empty() {
            self.buckets.remove(&cpl);
        }
        self.view = OnceLock::new();
        true
    }

    /// Returns the peers to check: those that have not answered at one of their addresses for at least `unheard_for`,
    /// the longest silent first (RT-4, RT-7). Requests that a peer sends us do not count, because they do not prove
    /// that others can reach it.
    pub fn due_for_check(&self, now: Duration, unheard_for: Duration) -> Vec<PeerInfo> {
        let mut due: Vec<&Slot> = self.slots().filter(|slot| now.saturating_sub(slot.reached) >= unheard_for).collect();
        due.sort_by_key(|slot| (slot.reached, slot.entry.key));
        due.into_iter().map(|slot| slot.entry.peer.clone()).collect()
    }

    /// Returns one FIND_NODE key (a preimage) per non-full bucket up to the last non-empty one (RT-7), at most
    /// [`MAX_REFRESH_TARGETS`]. Computes 2^(l+1) hashes for bucket l on average: some 10 ms in all for the deepest
    /// table.
    pub fn refresh_targets(&self, seed: u64) -> Vec<Vec<u8>> {
        let Some((&last, _)) = self.buckets.last_key_value() else { return Vec::new() };
        (0..=last.min(MAX_PREIMAGE_CPL))
            .filter(|cpl| self.buckets.get(cpl).is_none_or(|bucket| bucket.len() < K))
            .filter_map(|cpl| preimage(&self.local_key, cpl, seed))
            .collect()
    }

    /// Returns whether the peer is in the table.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.slot(peer).is_some()
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// Returns whether the table has no peers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the non-empty buckets by common prefix length, the closest last, each ordered by seniority.
    pub fn buckets(&self) -> Vec<(u16, Vec<Entry>)> {
        let entry = |slot: &Slot| Entry { heard: slot.heard, ..Entry::clone(&slot.entry) };
        self.buckets.iter().map(|(&cpl, bucket)| (cpl, bucket.iter().map(entry).collect())).collect()
    }

    /// Returns what a routing snapshot saves: each peer and when it was last heard. The farthest bucket comes first,
    /// and the peers of each bucket are ordered by seniority.
    pub fn entries_for_snapshot(&self) -> Vec<(PeerInfo, Duration)> {
        self.slots().map(|slot| (slot.entry.peer.clone(), slot.heard)).collect()
    }

    /// Returns a snapshot of the table. It is the same one until peers or addresses change; [`RoutingTable::heard`]
    /// does not count as a change.
    pub fn view(&self) -> Arc<TableView> {
        let picture = |slot: &Slot| match slot.entry.heard == slot.heard {
            true => slot.entry.clone(),
            false => Arc::new(Entry { heard: slot.heard, ..Entry::clone(&slot.entry) }),
        };
        self.view.get_or_init(|| TableView::new(self.slots().map(picture).collect())).clone()
    }

    /// Returns the key and bucket for a peer that is not in the table, or why the table cannot take it.
    fn place_for(&self, peer: &PeerInfo, seen_at: &[Multiaddr]) -> Result<(Key, u16), Refusal> {
        let key = Key::for_peer(&peer.id);
        let cpl = self.cpl(&key);
        if key == self.local_key {
            return Err(Refusal::Oneself);
        }
        if peer.addrs.is_empty() {
            return Err(Refusal::NoAddress);
        }
        if self.buckets.get(&cpl).is_some_and(|bucket| bucket.len() >= K) {
            return Err(Refusal::BucketFull);
        }
        // Every address counts, even those that would not be kept.
        let full = |group: &IpGroup| self.group_is_full(group, cpl, &peer.id);
        if self.groups(&peer.addrs).union(&self.public_groups(seen_at)).any(full) {
            return Err(Refusal::IpGroupFull);
        }
        Ok((key, cpl))
    }

    /// Returns whether peers other than `peer` fill `group`, in the table or in bucket `cpl`.
    fn group_is_full(&self, group: &IpGroup, cpl: u16, peer: &PeerId) -> bool {
        let counts = |slot: &&Slot| slot.groups.contains(group) && slot.entry.peer.id != *peer;
        let in_bucket = self.buckets.get(&cpl).map_or(0, |bucket| bucket.iter().filter(counts).count());
        in_bucket >= MAX_PER_IP_GROUP_AND_BUCKET || self.slots().filter(counts).count() >= MAX_PER_IP_GROUP
    }

    /// Adds the addresses that a known peer does not have yet. Returns false if the peer is not in the table.
    fn add_addresses(&mut self, peer: &PeerInfo) -> bool {
        let Some(slot) = self.slot(&peer.id) else { return false };
        let held = slot.entry.peer.addrs.clone();
        if peer.addrs.iter().any(|addr| !held.contains(addr)) && held.len() < MAX_ADDRESSES {
            let mut merged = held;
            merged.extend(self.allowed_addresses(&peer.id, &peer.addrs));
            self.replace_addresses(&peer.id, bounded(&merged));
        }
        true
    }

    /// Returns those of `addrs` that IP diversity allows for a known peer.
    fn allowed_addresses(&self, peer: &PeerId, addrs: &[Multiaddr]) -> Vec<Multiaddr> {
        let cpl = self.cpl(&Key::for_peer(peer));
        let mut allowed = bounded(addrs);
        allowed.retain(|addr| self.group(addr).is_none_or(|group| !self.group_is_full(&group, cpl, peer)));
        allowed
    }

    fn replace_addresses(&mut self, peer: &PeerId, addrs: Vec<Multiaddr>) {
        let groups = self.groups(&addrs);
        let Some(slot) = self.slot_mut(peer) else { return };
        if slot.entry.peer.addrs == addrs {
            return;
        }
        slot.groups = groups.union(&slot.seen).copied().collect();
        slot.entry = Arc::new(Entry {
            encoded: EncodedPeer::of_server(peer, &addrs),
            peer: PeerInfo { id: *peer, addrs },
            heard: slot.heard,
            ..*slot.entry
        });
        self.view = OnceLock::new();
    }

    /// Returns the IP group of an address; `None` if it has none or if IP diversity is off.
    fn group(&self, addr: &Multiaddr) -> Option<IpGroup> {
        self.settings.ip_diversity.as_ref()?.of(addr)
    }

    fn groups(&self, addrs: &[Multiaddr]) -> BTreeSet<IpGroup> {
        addrs.iter().filter_map(|addr| self.group(addr)).collect()
    }

    fn public_groups(&self, seen_at: &[Multiaddr]) -> BTreeSet<IpGroup> {
        seen_at.iter().filter(|addr| reach(addr) == Some(Reach::Public)).filter_map(|addr| self.group(addr)).collect()
    }

    fn cpl(&self, key: &Key) -> u16 {
        self.local_key.common_prefix_length(key)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.buckets.values().flatten()
    }

    fn slot(&self, peer: &PeerId) -> Option<&Slot> {
        let bucket = self.buckets.get(&self.cpl(&Key::for_peer(peer)))?;
        bucket.iter().find(|slot| slot.entry.peer.id == *peer)
    }

    fn slot_mut(&mut self, peer: &PeerId) -> Option<&mut Slot> {
        let cpl = self.cpl(&Key::for_peer(peer));
        self.buckets.get_mut(&cpl)?.iter_mut().find(|slot| slot.entry.peer.id == *peer)
    }
}

/// Returns the first [`MAX_ADDRESSES`] distinct addresses.
fn bounded(addrs: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::with_capacity(addrs.len().min(MAX_ADDRESSES));
    for addr in addrs {
        if kept.len() < MAX_ADDRESSES && !kept.contains(addr) {
            kept.push(addr.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests;
