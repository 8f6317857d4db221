//! Into the table and out of it (RT-2, RT-4, RT-8, LAN-1).

use crate::{
    kad::{
        Dht, PeerInfo,
        scope::{AddressScope, strip_peer},
        table::{K, Offer},
    },
    node::{RpcError, Shared, addresses::plausible, book::MAX_ADDRESSES, counters::Counter},
};
use libp2p::{PeerId, identify, swarm::ConnectionId};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// RT-8: a candidate answers within this time, dial included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that broke off is asked once more after this pause: it may be restarting.
const RECHECK_PAUSE: Duration = Duration::from_secs(2);

/// What Kubo reprovides by unless told otherwise: its records would be gone half of the time at our default ttl.
const KUBO_INTERVAL: Duration = Duration::from_secs(22 * 3600);

impl Shared {
    /// What a connected peer says of itself. On the swarm task: must not block.
    pub(crate) fn identified(self: &Arc<Self>, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let said = info.listen_addrs.into_iter().filter_map(|addr| strip_peer(addr, &peer));
        let said: Vec<_> = said.take(MAX_ADDRESSES).collect();
        let Some(known) = self.book.identified(&peer, &info.agent_version, &info.protocols, said) else { return };
        self.warn_of_kubo_interval(&peer, &info.agent_version);
        let connection = known.connections.iter().find(|c| c.id == connection);
        let seen_at = connection.map(|c| &c.address);
        for dht in Dht::ALL {
            let table = self.routing.of(dht);
            if !known.serves(dht) {
                if table.remove(&peer) {
                    debug!(%peer, dht = dht.name(), "no longer a server, removed from the routing table");
                }
                continue;
            }
            let scope = self.config.profile.scope(dht);
            // LAN-1: who speaks to us from elsewhere is not of the local network, whatever it says.
            let from_elsewhere = seen_at.is_some_and(|addr| !scope.allows(addr));
            if scope == AddressScope::Private && from_elsewhere && !table.contains(&peer) {
                continue;
            }
            let mut addrs = plausible(scope, &known.addrs, seen_at);
            // The one that we dialled is known to work.
            let dialled = connection.filter(|c| !c.inbound).and_then(|c| strip_peer(c.address.clone(), &peer));
            if let Some(dialled) = dialled.filter(|addr| scope.allows(addr)) {
                addrs.retain(|addr| *addr != dialled);
                addrs.insert(0, dialled);
            }
            if table.contains(&peer) && !addrs.is_empty() {
                table.set_addresses(&peer, &addrs);
            } else {
                self.candidate(dht, PeerInfo { id: peer, addrs });
            }
        }
    }

    /// Probes a peer that might be a server of `dht`, if the table has use for it. Does not wait.
    pub(crate) fn candidate(self: &Arc<Self>, dht: Dht, peer: PeerInfo) {
        let table = self.routing.of(dht);
        if table.offer(&peer, self.clock.monotonic()) != Offer::Probe || !table.begin_probe(peer.id) {
            return;
        }
        let Ok(permit) = self.routing.probes.clone().try_acquire_owned() else {
            table.end_probe(&peer.id);
            self.counters.add(Counter::ProbesDropped);
            return;
        };
        let shared = self.clone();
        self.spawn(async move {
            shared.probe_and_admit(dht, &peer).await;
            shared.routing.of(dht).end_probe(&peer.id);
            drop(permit);
        });
    }

    /// Probes a peer and waits for the outcome. True if it is in the table now.
    pub(crate) async fn try_candidate(self: &Arc<Self>, dht: Dht, peer: &PeerInfo) -> bool {
        let table = self.routing.of(dht);
        match table.offer(peer, self.clock.monotonic()) {
            Offer::Known => true,
            Offer::Refused(_) => false,
            Offer::Probe => {
                if !table.begin_probe(peer.id) {
                    return false;
                }
                let permit = self.routing.probes.acquire().await;
                let admitted = permit.is_ok() && self.probe_and_admit(dht, peer).await;
                table.end_probe(&peer.id);
                admitted
            }
        }
    }

    async fn probe_and_admit(self: &Arc<Self>, dht: Dht, peer: &PeerInfo) -> bool {
        match self.probe(dht, peer).await {
            Ok(()) => {
                self.counters.add(Counter::ProbesAnswered);
                let admitted = self.routing.of(dht).admit(peer, self.clock.monotonic());
                debug!(peer = %peer.id, dht = dht.name(), admitted, "probe answered");
                admitted
            }
            Err(error) => {
                self.counters.add(Counter::ProbesFailed);
                debug!(peer = %peer.id, dht = dht.name(), %error, "probe failed");
                false
            }
        }
    }

    /// RT-8: FIND_NODE for the peer itself; it must know somebody, unless we are few ourselves.
    async fn probe(self: &Arc<Self>, dht: Dht, peer: &PeerInfo) -> Result<(), RpcError> {
        let target = peer.id.to_bytes();
        let asked = timeout(PROBE_TIMEOUT, self.find_node_unnoticed(dht, peer, &target)).await;
        let closer = asked.map_err(|_| RpcError::Timeout(PROBE_TIMEOUT))??;
        if closer.is_empty() && self.routing.of(dht).view().len() >= K {
            return Err(RpcError::BadAnswer("knows nobody".to_owned()));
        }
        Ok(())
    }

    /// What an ordinary request says about the peer: an answer with `closer` peers is as good as a probe, a
    /// failure of a peer in the table leads to a check.
    pub(crate) fn notice(self: &Arc<Self>, dht: Dht, peer: &PeerInfo, closer: Result<usize, &RpcError>) {
        let table = self.routing.of(dht);
        let now = self.clock.monotonic();
        match closer {
            Ok(_) if table.contains(&peer.id) => table.heard(&peer.id, now),
            Ok(closer) => {
                let known_enough = closer > 0 || table.view().len() < K;
                if known_enough && table.offer(peer, now) == Offer::Probe {
                    table.admit(peer, now);
                }
            }
            // Says something about us.
            Err(RpcError::Busy(_) | RpcError::Stopped) => {}
            Err(RpcError::Protocol(_)) => self.remove(dht, &peer.id, "does not speak the protocol"),
            Err(error) if table.contains(&peer.id) => {
                let pause = if matches!(error, RpcError::Timeout(_)) { Duration::ZERO } else { RECHECK_PAUSE };
                self.recheck(dht, peer.clone(), pause);
            }
            Err(_) => {}
        }
    }

    /// Checks a peer of the table once more and removes it if it does not answer. Does not wait.
    fn recheck(self: &Arc<Self>, dht: Dht, peer: PeerInfo, pause: Duration) {
        let table = self.routing.of(dht);
        if !table.begin_probe(peer.id) {
            return;
        }
        let Ok(permit) = self.routing.probes.clone().try_acquire_owned() else {
            // The refresh job checks it in any case.
            return table.end_probe(&peer.id);
        };
        let shared = self.clone();
        self.spawn(async move {
            sleep(pause).await;
            shared.check(dht, &peer).await;
            shared.routing.of(dht).end_probe(&peer.id);
            drop(permit);
        });
    }

    /// Probes a peer of the table: heard of, or removed. True if it stays.
    pub(super) async fn check(self: &Arc<Self>, dht: Dht, peer: &PeerInfo) -> bool {
        match self.probe(dht, peer).await {
            Ok(()) => {
                self.routing.of(dht).heard(&peer.id, self.clock.monotonic());
                true
            }
            Err(RpcError::Busy(_) | RpcError::Stopped) => true,
            Err(error) => {
                self.remove(dht, &peer.id, &error.to_string());
                false
            }
        }
    }

    fn remove(&self, dht: Dht, peer: &PeerId, why: &str) {
        if self.routing.of(dht).remove(peer) {
            self.counters.add(Counter::PeersRemoved);
            debug!(%peer, dht = dht.name(), why, "removed from the routing table");
        }
    }

    /// Design, section 2. Once is enough: the operator sets it on all nodes.
    fn warn_of_kubo_interval(&self, peer: &PeerId, agent: &str) {
        let ttl = self.config.records.ttl;
        if ttl < KUBO_INTERVAL && agent.starts_with("kubo/") && !self.kubo_warned.swap(true, Ordering::Relaxed) {
            warn!(
                %peer,
                agent,
                ttl = %humantime::format_duration(ttl),
                "Kubo announces its CIDs every 22 h unless told otherwise, and records live shorter than that here: \
                 run `ipfs config Provide.DHT.Interval 10h` on each Kubo node, or raise `records.ttl`"
            );
        }
    }
}
