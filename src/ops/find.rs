//! Look-ups of providers, peers and closest servers, and connecting to a peer.

use super::{Ops, OpsError, QueryEvent, underway::Underway};
use crate::{
    kad::{
        Cid, Dht, PeerInfo, cids,
        keyspace::Key,
        scope::{reach, relay_address},
        table::K,
        useful,
    },
    node::RpcError,
    transport::addresses::{UNSPOKEN, can_dial},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::collections::HashSet;
use tokio::sync::mpsc;

/// Most providers that one query returns.
pub const PROVIDERS_MAX: usize = 10_000;

/// An event of a search for providers.
#[derive(Clone, Debug)]
pub enum FindEvent {
    /// A step of the look-up.
    Step(QueryEvent),
    /// A provider. Each is reported once.
    Provider(PeerInfo),
}

/// One of the servers closest to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closest {
    /// The DHT that it serves.
    pub dht: Dht,
    /// Its peer id and addresses.
    pub server: PeerInfo,
    /// Common prefix length of its key and the target, in bits.
    pub cpl: u16,
    /// XOR distance to the target.
    pub distance: [u8; 32],
}

impl Ops {
    /// Finds up to `limit` (1 to [`PROVIDERS_MAX`]) providers of a CID, in the own store and then in both DHTs. Sends
    /// each provider to `events` as soon as one of its addresses is known, and those without addresses at the end.
    /// Returns all in the same order.
    pub async fn find_providers(&self, cid: &Cid, limit: usize, events: mpsc::Sender<FindEvent>) -> Vec<PeerInfo> {
        let (multihash, limit) = (cid.hash().to_bytes(), limit.clamp(1, PROVIDERS_MAX));
        let mut query = Underway::start(|events| self.handles.node.find_providers(&multihash, limit, Some(events)));
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while let Some(event) = query.event().await {
            // A provider without addresses waits, since a later answer may have some.
            let provider = provider(&event).filter(|peer| !peer.addrs.is_empty());
            // An error means that nobody reads the events. The result is the same, here and below.
            let _ = events.send(FindEvent::Step(event)).await;
            if let Some(provider) = provider
                && found.len() < limit
                && seen.insert(provider.id)
            {
                let _ = events.send(FindEvent::Provider(provider.clone())).await;
                found.push(provider);
            }
        }
        for provider in query.outcome().await {
            if found.len() < limit && seen.insert(provider.id) {
                let _ = events.send(FindEvent::Provider(provider.clone())).await;
                found.push(provider);
            }
        }
        found
    }

    /// Runs [`Ops::find_providers`] and returns its events as they come.
    pub fn finding_providers<'o>(
        &'o self,
        cid: &'o Cid,
        limit: usize,
    ) -> Underway<FindEvent, impl Future<Output = Vec<PeerInfo>> + 'o> {
        Underway::start(move |events| self.find_providers(cid, limit, events))
    }

    /// Returns up to `limit` (1 to [`PROVIDERS_MAX`]) providers of a CID from the own store. Asks no other peer.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn local_providers(&self, cid: &Cid, limit: usize) -> Result<Vec<PeerInfo>, OpsError> {
        let (multihash, limit) = (cid.hash().to_bytes(), limit.clamp(1, PROVIDERS_MAX));
        let own = {
            let (provided, multihash) = (self.handles.store.provided.clone(), multihash.clone());
            tokio::task::spawn_blocking(move || provided.contains(&multihash)).await?
        };
        let mut found = Vec::new();
        if own {
            found.push(PeerInfo { id: self.peer_id(), addrs: self.provider_addresses() });
        }
        let seed = u64::from(self.handles.clock.wall().0);
        let records = self.handles.store.records.providers(&multihash, limit.saturating_sub(found.len()), seed).await;
        found.extend(
            records
                .into_iter()
                .map(|record| PeerInfo { id: record.peer, addrs: useful::bounded(record.addrs.to_vec()) }),
        );
        Ok(found)
    }

    /// Finds the addresses of a peer. `None` if neither this node nor the network knows the peer.
    pub async fn find_peer(&self, peer: &PeerId, events: Option<mpsc::Sender<QueryEvent>>) -> Option<PeerInfo> {
        self.handles.node.find_peer(peer, events).await
    }

    /// Finds the k servers closest to `target` (a multihash, or a peer id in bytes) in each DHT, closest first. With
    /// `local` only this node's routing tables are used.
    pub async fn closest(&self, target: &[u8], local: bool, events: Option<mpsc::Sender<QueryEvent>>) -> Vec<Closest> {
        let (node, place) = (&self.handles.node, cids::place(target));
        let mut all = Vec::new();
        for dht in Dht::ALL {
            if node.table(dht).is_empty() {
                continue;
            }
            let servers: Vec<PeerInfo> = match local {
                true => node.table(dht).closest(&place, K).into_iter().map(|entry| entry.peer.clone()).collect(),
                false => node.closest_peers(dht, target, events.clone()).await.peers,
            };
            all.extend(servers.into_iter().map(|server| {
                let key = Key::for_peer(&server.id);
                Closest { dht, cpl: key.common_prefix_length(&place), distance: xor(&key, &place), server }
            }));
        }
        all
    }

    /// Connects to the peer at `addr`, which must have the peer id behind `/p2p/` if there is one. For `/p2p/ID` alone
    /// the addresses are looked up first. Returns the peer, and the addresses that were tried.
    ///
    /// # Errors
    /// [`OpsError::BadInput`] for an address that cannot be dialled; [`OpsError::Failed`] if the peer is not known or
    /// not reached.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerInfo, OpsError> {
        let own = self.peer_id();
        let bad = |reason: &str| OpsError::BadInput(format!("cannot connect to {addr}: {reason}").into());
        if addr.iter().last() == Some(Protocol::P2p(own)) {
            return Err(bad(OWN));
        }
        if addr.iter().any(|part| part == Protocol::P2pCircuit) {
            return Err(bad("it leads through a relay, which dhtstore does not dial; \
                give an address of the peer itself"));
        }
        if let Some(peer) = only_peer(&addr) {
            return self.connect_to(peer).await;
        }
        if reach(&addr).is_none() {
            return Err(bad("nobody can dial it; give host and port, like /ip4/192.0.2.7/tcp/4001 or \
                    /dns/example.net/udp/4001/quic-v1"));
        }
        if !can_dial(&addr) {
            return Err(bad(UNSPOKEN));
        }
        let connected = self.handles.node.connect(addr.clone()).await;
        let id = connected.map_err(|error| match error {
            RpcError::Own => bad(OWN),
            error => NotConnected { peer: addr.to_string(), source: error }.into(),
        })?;
        Ok(PeerInfo { id, addrs: vec![addr] })
    }

    /// Connects to a peer at the addresses that this node or the network knows.
    async fn connect_to(&self, peer: PeerId) -> Result<PeerInfo, OpsError> {
        let node = &self.handles.node;
        let unknown = |reason: &str| {
            let next = format!("give its address, like /ip4/192.0.2.7/tcp/4001/p2p/{peer}");
            OpsError::Failed(format!("cannot connect to {peer}: {reason}; {next}").into())
        };
        let found = node.find_peer(&peer, None).await;
        let found = found.ok_or_else(|| unknown("neither this node nor the network knows its addresses"))?;
        if node.dialable(&found).is_empty() && found.addrs.iter().any(|addr| relay_address(addr).is_some()) {
            return Err(unknown("its known addresses lead through relays, which dhtstore does not dial"));
        }
        let connected = node.connect_to(&found).await;
        let id = connected.map_err(|source| NotConnected { peer: peer.to_string(), source })?;
        Ok(PeerInfo { id, addrs: found.addrs })
    }
}

/// Returns the provider that an event names. The node formatted the peer id and the addresses, so they parse.
fn provider(event: &QueryEvent) -> Option<PeerInfo> {
    let QueryEvent::Provider { provider, addresses, .. } = event else { return None };
    let addrs = addresses.iter().filter_map(|addr| addr.parse().ok()).collect();
    Some(PeerInfo { id: provider.parse().ok()?, addrs })
}

fn xor(a: &Key, b: &Key) -> [u8; 32] {
    std::array::from_fn(|index| a.as_bytes()[index] ^ b.as_bytes()[index])
}

const OWN: &str = "it is an address of this node itself; give one of another node, as `dhtstore id` prints it there";

/// Returns the peer id of `/p2p/ID`; `None` for an address with more parts.
fn only_peer(addr: &Multiaddr) -> Option<PeerId> {
    let mut parts = addr.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::P2p(peer)), None) => Some(peer),
        _ => None,
    }
}

/// A connection that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {peer}: {}", advised(.source))]
struct NotConnected {
    /// Its address or peer id.
    peer: String,
    source: RpcError,
}

impl From<NotConnected> for OpsError {
    fn from(error: NotConnected) -> Self {
        Self::Failed(error.into())
    }
}

/// Returns the reason why a peer was not reached, with the next step.
fn advised(error: &RpcError) -> String {
    match error {
        RpcError::Dial(reason) => format!("{reason}; check host, port and the id behind /p2p/, and that the peer runs"),
        RpcError::Timeout(_) => format!("{error}; check that the peer runs, and that no firewall is in between"),
        RpcError::Busy(_) => format!("{error}; try again later"),
        error => error.to_string(),
    }
}
