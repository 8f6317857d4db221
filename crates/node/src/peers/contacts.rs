//! What we know about connected peers, and about those that left recently: identify, addresses, round-trip times.

use crate::{
    kad::{
        Dht, PeerInfo,
        useful::{self, MAX_ADDRESSES},
    },
    protocols::{self, AUTONAT_V1, AUTONAT_V2_REQUEST},
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, swarm::ConnectionId};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// How long a peer is remembered after its last connection ended: long enough for look-ups that heard of the peer to
/// ask about it again, short enough that its addresses are still valid.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Most peers remembered without a connection, about 1 KB each.
const MAX_LEFT: usize = 10_000;

/// Most protocols kept from a peer's identify message. Kubo lists about 15.
const MAX_PROTOCOLS: usize = 64;

/// Most characters kept of an agent version.
const MAX_AGENT: usize = 128;

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// The remote address.
    pub(crate) address: Multiaddr,
    pub(crate) inbound: bool,
    pub(crate) since: Duration,
    /// The address at which the peer sees us, as it reports over this connection.
    pub(crate) observed: Option<Multiaddr>,
}

/// A peer that we can ask to dial us: we dialled it, and it speaks AutoNAT.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    pub(crate) peer: PeerId,
    /// The connection that we dialled.
    pub(crate) connection: ConnectionId,
    pub(crate) address: Multiaddr,
    /// The address at which it sees us.
    pub(crate) observed: Option<Multiaddr>,
    pub(crate) v1: bool,
    pub(crate) v2: bool,
}

/// What is known about one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) connections: Vec<Connection>,
    pub(crate) agent: Option<String>,
    pub(crate) protocols: Vec<StreamProtocol>,
    /// Its addresses from identify, at most [`MAX_ADDRESSES`]; not filtered by scope.
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) ping: Option<Duration>,
    left: Option<Duration>,
}

impl Known {
    /// Returns whether the peer is a server of `dht`.
    pub(crate) fn serves(&self, dht: Dht) -> bool {
        self.protocols.contains(&protocols::of(dht))
    }
}

/// All contacts. The connection limits and [`MAX_LEFT`] bound their number. Times are monotonic.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    peers: HashMap<PeerId, Known>,
    /// Peers by the time at which they left, oldest first. An entry counts only if `Known::left` still has that time.
    left: VecDeque<(PeerId, Duration)>,
}

impl Inner {
    fn forget(&mut self, now: Duration) {
        while let Some(&(peer, at)) = self.left.front() {
            let expired = now.saturating_sub(at) >= KEPT;
            if !expired && self.left.len() <= MAX_LEFT {
                break;
            }
            self.left.pop_front();
            if self.peers.get(&peer).is_some_and(|known| known.left == Some(at)) {
                self.peers.remove(&peer);
            }
        }
    }
}

impl Contacts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(crate) fn connected(&self, peer: PeerId, connection: Connection) {
        let mut inner = self.lock();
        let known = inner.peers.entry(peer).or_default();
        known.left = None;
        known.connections.push(connection);
    }

    pub(crate) fn disconnected(&self, peer: &PeerId, id: ConnectionId, now: Duration) {
        let mut inner = self.lock();
        let Some(known) = inner.peers.get_mut(peer) else { return };
        known.connections.retain(|connection| connection.id != id);
        if known.connections.is_empty() {
            known.left = Some(now);
            known.ping = None;
            inner.left.push_back((*peer, now));
        }
        inner.forget(now);
    }

    /// Records the address at which `peer` sees us, as it reports over the connection `id`.
    pub(crate) fn observed(&self, peer: &PeerId, id: ConnectionId, addr: Multiaddr) {
        if let Some(known) = self.lock().peers.get_mut(peer)
            && let Some(connection) = known.connections.iter_mut().find(|connection| connection.id == id)
        {
            connection.observed = Some(addr);
        }
    }

    /// Returns the peers that we can ask to dial us.
    pub(crate) fn witnesses(&self) -> Vec<Witness> {
        let inner = self.lock();
        let witness = |(peer, known): (&PeerId, &Known)| {
            let speaks = |protocol: &StreamProtocol| known.protocols.contains(protocol);
            let (v1, v2) = (speaks(&AUTONAT_V1), speaks(&AUTONAT_V2_REQUEST));
            let connection = known.connections.iter().find(|connection| !connection.inbound)?;
            let Connection { id, address, observed, .. } = connection.clone();
            (v1 || v2).then_some(Witness { peer: *peer, connection: id, address, observed, v1, v2 })
        };
        inner.peers.iter().filter_map(witness).collect()
    }

    /// Stores what a peer says about itself. Returns `None` and stores nothing if the peer is unknown.
    pub(crate) fn identified(
        &self,
        peer: &PeerId,
        agent: &str,
        protocols: &[StreamProtocol],
        addrs: Vec<Multiaddr>,
    ) -> Option<Known> {
        let mut inner = self.lock();
        let known = inner.peers.get_mut(peer)?;
        known.agent = Some(agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect());
        known.protocols = protocols.iter().take(MAX_PROTOCOLS).cloned().collect();
        // The protocols of both DHTs are kept even if they stand beyond the first `MAX_PROTOCOLS` of the list.
        for dht in Dht::ALL {
            if protocols.contains(&protocols::of(dht)) && !known.protocols.contains(&protocols::of(dht)) {
                known.protocols.push(protocols::of(dht));
            }
        }
        known.addrs = addrs;
        if known.addrs.len() > MAX_ADDRESSES {
            // Does not simply keep the first ones: circuits stand last, and a peer behind a NAT has only them.
            known.addrs = useful::bounded(std::mem::take(&mut known.addrs));
        }
        Some(known.clone())
    }

    pub(crate) fn pinged(&self, peer: &PeerId, took: Duration) {
        if let Some(known) = self.lock().peers.get_mut(peer) {
            known.ping = Some(took);
        }
    }

    /// Returns the addresses that a peer gave by identify, if it is or recently was connected and gave any.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Option<PeerInfo> {
        let inner = self.lock();
        let known = inner.peers.get(peer).filter(|known| !known.addrs.is_empty())?;
        Some(PeerInfo { id: *peer, addrs: known.addrs.clone() })
    }

    /// Returns the protocols of a peer from identify; empty before identify.
    pub(crate) fn protocols(&self, peer: &PeerId) -> Option<Vec<StreamProtocol>> {
        self.lock().peers.get(peer).map(|known| known.protocols.clone())
    }

    /// Returns whether any peer is connected.
    pub(crate) fn has_connections(&self) -> bool {
        self.lock().peers.values().any(|known| !known.connections.is_empty())
    }

    /// Returns the remote addresses of a peer's open connections.
    pub(crate) fn seen_at(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let inner = self.lock();
        let connections = inner.peers.get(peer).map(|known| known.connections.as_slice()).unwrap_or_default();
        connections.iter().map(|connection| connection.address.clone()).collect()
    }

    /// Returns all connected peers.
    pub(crate) fn connected_peers(&self) -> Vec<(PeerId, Known)> {
        let inner = self.lock();
        let connected = inner.peers.iter().filter(|(_, known)| !known.connections.is_empty());
        connected.map(|(peer, known)| (*peer, known.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: usize) -> Connection {
        Connection {
            id: ConnectionId::new_unchecked(id),
            address: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            inbound: true,
            since: Duration::ZERO,
            observed: None,
        }
    }

    fn meet(contacts: &Contacts, peer: PeerId, id: usize) {
        contacts.connected(peer, connection(id));
        let addrs = vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
        contacts.identified(&peer, "test/1", &[protocols::of(Dht::Wan)], addrs).unwrap();
    }

    #[test]
    fn a_peer_is_remembered_for_a_while_after_it_left() {
        let contacts = Contacts::default();
        let (a, b) = (PeerId::random(), PeerId::random());
        meet(&contacts, a, 1);
        contacts.disconnected(&a, ConnectionId::new_unchecked(1), Duration::from_secs(10));
        assert!(contacts.addresses(&a).is_some());
        assert!(contacts.connected_peers().is_empty());
        meet(&contacts, b, 2);
        contacts.disconnected(&b, ConnectionId::new_unchecked(2), Duration::from_secs(10) + KEPT);
        assert!(contacts.addresses(&a).is_none());
        assert!(contacts.addresses(&b).is_some());
    }

    #[test]
    fn a_peer_that_came_back_is_not_forgotten() {
        let contacts = Contacts::default();
        let (a, b) = (PeerId::random(), PeerId::random());
        meet(&contacts, a, 1);
        contacts.disconnected(&a, ConnectionId::new_unchecked(1), Duration::ZERO);
        meet(&contacts, a, 2);
        meet(&contacts, b, 3);
        contacts.disconnected(&b, ConnectionId::new_unchecked(3), KEPT * 2);
        assert!(contacts.addresses(&a).is_some());
        assert_eq!(contacts.connected_peers().len(), 1);
    }

    #[test]
    fn the_contacts_are_bounded() {
        let contacts = Contacts::default();
        for id in 0..MAX_LEFT + 50 {
            let peer = PeerId::random();
            contacts.connected(peer, connection(id));
            contacts.disconnected(&peer, ConnectionId::new_unchecked(id), Duration::ZERO);
        }
        let inner = contacts.lock();
        assert_eq!(inner.peers.len(), MAX_LEFT);
        assert_eq!(inner.left.len(), MAX_LEFT);
    }

    #[test]
    fn what_a_peer_says_is_cut_to_size() {
        let contacts = Contacts::default();
        let peer = PeerId::random();
        contacts.connected(peer, connection(1));
        let protocols: Vec<_> = (0..500)
            .map(|n| StreamProtocol::try_from_owned(format!("/p/{n}")).unwrap())
            .chain([protocols::of(Dht::Lan)])
            .collect();
        let addrs = vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap(); 100];
        let known = contacts.identified(&peer, &"x".repeat(10_000), &protocols, addrs).unwrap();
        assert_eq!(known.agent.as_deref().map(str::len), Some(MAX_AGENT));
        assert_eq!(known.addrs.len(), MAX_ADDRESSES);
        assert!(known.protocols.len() <= MAX_PROTOCOLS + 2);
        assert!(known.serves(Dht::Lan) && !known.serves(Dht::Wan));
    }
}
