//! Decides which peers enter and leave the tables (RT-2, RT-4, RT-8, LAN-1).

use super::tables::Tables;
use crate::{
    error::RpcError,
    kad::{
        Dht, PeerInfo, rules,
        scope::{AddressScope, strip_peer},
        table::{K, Offer},
    },
    metrics::Metrics,
    peers::{Peers, addresses::plausible},
    rpc::{Observer, Rpc},
    tasks::Tasks,
};
use dhtstore_host::clock::Clock;
use libp2p::{Multiaddr, PeerId, identify, swarm::ConnectionId};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// RT-7: a peer that has not answered at one of its addresses for this long is checked.
pub(super) const UNHEARD: Duration = Duration::from_secs(5 * 60);

/// RT-8: time for a candidate to answer, dial included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a candidate that could not be dialled is dialled again. The address that it claims may belong to
/// someone else, and our dials must not become an attack on that address.
const DIAL_BACK_PAUSE: Duration = Duration::from_secs(30);

/// Pause before a peer whose connection broke is asked again: it may be restarting.
const RECHECK_PAUSE: Duration = Duration::from_secs(2);

/// Minimum time between two checks of a peer whose connections keep breaking.
const RECHECK_SELDOM: Duration = Duration::from_secs(30);

/// Kubo's default interval for reproviding. At our default ttl of 12 h its records would be missing half of the time.
const KUBO_INTERVAL: Duration = Duration::from_secs(22 * 3600);

/// Decides by probes which peers are in the tables.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Lets tasks hold this object.
    this: Weak<Admission>,
    peers: Arc<Peers>,
    tables: Arc<Tables>,
    rpc: Arc<Rpc>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    record_ttl: Duration,
    kubo_warned: AtomicBool,
}

impl Observer for Admission {
    /// Uses the outcome of a request. An answer counts as a probe if we dialled the peer, and leads to a probe if the
    /// peer only dialled us. A failure of a peer in the table leads to a check.
    fn answered(&self, dht: Dht, peer: &PeerInfo, closer: Result<usize, &RpcError>) {
        match closer {
            Ok(closer) => self.well(dht, peer, closer),
            Err(error) => self.ill(dht, peer, error),
        }
    }
}

impl Admission {
    /// Creates the admission together with `rpc`, whose requests it observes. Warns once if it meets a Kubo node whose
    /// default reprovide interval is longer than `record_ttl`.
    pub(crate) fn new(
        peers: Arc<Peers>,
        tables: Arc<Tables>,
        rpc: impl FnOnce(Weak<dyn Observer>) -> Arc<Rpc>,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        record_ttl: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            peers,
            tables,
            rpc: rpc(this.clone()),
            tasks,
            clock,
            metrics,
            record_ttl,
            kubo_warned: AtomicBool::new(false),
        })
    }

    /// Returns the part that sends its requests.
    pub(crate) fn rpc(&self) -> &Arc<Rpc> {
        &self.rpc
    }

    /// Spawns a task of the node that holds `self`.
    fn spawn<F>(&self, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if let Some(this) = self.this.upgrade() {
            self.tasks.spawn(task(this));
        }
    }

    /// Processes the identify message of a connected peer. Runs on the swarm task and must not block.
    pub(crate) fn identified(&self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let said = info.listen_addrs.into_iter().filter_map(|addr| strip_peer(addr, &peer));
        let said: Vec<_> = said.take(rules::MAX_ADDRESSES).collect();
        let Some(known) = self.peers.contacts.identified(&peer, &info.agent_version, &info.protocols, said) else {
            return;
        };
        self.warn_of_kubo_interval(&peer, &info.agent_version);
        let connection = known.connections.iter().find(|c| c.id == connection);
        let seen_at = connection.map(|c| &c.address);
        for dht in Dht::ALL {
            let table = self.tables.of(dht);
            if !known.serves(dht) {
                if table.remove(&peer) {
                    debug!(%peer, dht = dht.name(), "no longer a server, removed from the routing table");
                }
                continue;
            }
            let scope = self.peers.scope(dht);
            // LAN-1: a peer that connects from elsewhere is not on the local network, whatever it claims.
            let from_elsewhere = seen_at.is_some_and(|addr| !scope.allows(addr));
            if scope == AddressScope::Private && from_elsewhere && !table.contains(&peer) {
                continue;
            }
            let mut addrs = plausible(scope, &known.addrs, seen_at);
            // The address that we dialled is known to work.
            let dialled = connection.filter(|c| !c.inbound).and_then(|c| strip_peer(c.address.clone(), &peer));
            if let Some(dialled) = dialled.filter(|addr| scope.allows(addr)) {
                addrs.retain(|addr| *addr != dialled);
                addrs.insert(0, dialled);
            }
            if table.contains(&peer) && !addrs.is_empty() {
                // Addresses from identify are claims: the address at which the peer answered stays first.
                table.set_addresses(&peer, &addrs);
            } else {
                self.candidate(dht, PeerInfo { id: peer, addrs });
            }
        }
    }

    /// Starts a probe of a peer that might be a server of `dht`, if the table can use it.
    pub(crate) fn candidate(&self, dht: Dht, peer: PeerInfo) {
        let table = self.tables.of(dht);
        let now = self.clock.monotonic();
        if table.offer(&peer, now) != Offer::Probe || table.is_paused(&peer.id, now) || !table.begin_probe(peer.id) {
            return;
        }
        let Ok(permit) = self.tables.probes.clone().try_acquire_owned() else {
            table.end_probe(&peer.id);
            self.metrics.probes_dropped.inc();
            return;
        };
        self.spawn(|this| async move {
            let table = this.tables.of(dht);
            if let Err(RpcError::Dial(_) | RpcError::Timeout(_)) = this.probe_and_admit(dht, &peer).await {
                let now = this.clock.monotonic();
                table.pause(peer.id, now, now + DIAL_BACK_PAUSE);
            }
            table.end_probe(&peer.id);
            drop(permit);
        });
    }

    /// Probes a peer and waits for the outcome. Returns whether the peer is in the table now.
    pub(crate) async fn try_candidate(&self, dht: Dht, peer: &PeerInfo) -> bool {
        let table = self.tables.of(dht);
        match table.offer(peer, self.clock.monotonic()) {
            Offer::Known => true,
            Offer::Refused(_) => false,
            Offer::Probe => {
                if !table.begin_probe(peer.id) {
                    return false;
                }
                let permit = self.tables.probes.acquire().await;
                let admitted = permit.is_ok() && self.probe_and_admit(dht, peer).await.unwrap_or(false);
                table.end_probe(&peer.id);
                admitted
            }
        }
    }

    /// Probes a peer. Returns whether it is in the table now, or why it did not answer.
    async fn probe_and_admit(&self, dht: Dht, peer: &PeerInfo) -> Result<bool, RpcError> {
        match self.probe(dht, peer).await {
            Ok(at) => {
                self.metrics.probes_answered.inc();
                let admitted = self.admit(dht, peer, at);
                debug!(peer = %peer.id, dht = dht.name(), admitted, "probe answered");
                Ok(admitted)
            }
            Err(error) => {
                self.metrics.probes_failed.inc();
                debug!(peer = %peer.id, dht = dht.name(), %error, "probe failed");
                Err(error)
            }
        }
    }

    /// Adds a peer that has answered at `at` to the table, with that address first. Returns whether it is in the table
    /// now.
    fn admit(&self, dht: Dht, peer: &PeerInfo, at: Multiaddr) -> bool {
        let claimed = peer.addrs.iter().filter(|addr| **addr != at).cloned();
        let peer = PeerInfo { id: peer.id, addrs: [at.clone()].into_iter().chain(claimed).collect() };
        let seen_at = self.peers.contacts.seen_at(&peer.id);
        let fitting = fitting(self.peers.scope(dht), &peer, &seen_at);
        fitting.is_some_and(|peer| self.tables.of(dht).admit(&peer, &seen_at, self.clock.monotonic()))
    }

    /// Asks a peer for itself with FIND_NODE, over a connection that we dialled (RT-4). It must name some peer, unless
    /// our own table is small (RT-8). Returns the address at which it answered.
    async fn probe(&self, dht: Dht, peer: &PeerInfo) -> Result<Multiaddr, RpcError> {
        let target = peer.id.to_bytes();
        let asked = timeout(PROBE_TIMEOUT, self.rpc.find_node_dialled(dht, peer, &target)).await;
        let (closer, at) = asked.map_err(|_| RpcError::Timeout(PROBE_TIMEOUT))??;
        if closer.is_empty() && self.tables.of(dht).view().len() >= K {
            return Err(RpcError::bad_answer("names no peer"));
        }
        Ok(at)
    }

    fn well(&self, dht: Dht, peer: &PeerInfo, closer: usize) {
        let table = self.tables.of(dht);
        let now = self.clock.monotonic();
        let scope = self.peers.scope(dht);
        match self.peers.connections.dialled(&peer.id, scope) {
            Some((at, _)) if table.contains(&peer.id) => table.reached(&peer.id, &at, now),
            None if table.contains(&peer.id) => table.heard(&peer.id, now),
            // It names no peer, and our table is large enough.
            _ if closer == 0 && table.view().len() >= K => {}
            Some((at, _)) if table.offer(peer, now) == Offer::Probe => {
                self.admit(dht, peer, at);
            }
            None if fitting(scope, peer, &self.peers.contacts.seen_at(&peer.id)).is_some() => {
                self.candidate(dht, peer.clone());
            }
            _ => {}
        }
    }

    fn ill(&self, dht: Dht, peer: &PeerInfo, error: &RpcError) {
        match error {
            // These say nothing about the peer.
            RpcError::Busy(_) | RpcError::Stopped => {}
            RpcError::Protocol(_) => self.remove(dht, &peer.id, "does not speak the protocol"),
            error if self.tables.of(dht).contains(&peer.id) => {
                let pause = if matches!(error, RpcError::Timeout(_)) { Duration::ZERO } else { RECHECK_PAUSE };
                self.recheck(dht, peer.clone(), pause);
            }
            _ => {}
        }
    }

    /// Starts a check of a peer of the table after `pause`.
    fn recheck(&self, dht: Dht, peer: PeerInfo, pause: Duration) {
        let table = self.tables.of(dht);
        if !table.begin_probe(peer.id) {
            return;
        }
        let Ok(permit) = self.tables.probes.clone().try_acquire_owned() else {
            // The refresh job checks the peer later.
            return table.end_probe(&peer.id);
        };
        self.spawn(|this| async move {
            sleep(pause).await;
            this.check(dht, &peer).await;
            this.tables.of(dht).end_probe(&peer.id);
            drop(permit);
        });
    }

    /// Starts a check of a table peer whose last connection was ended by the peer or by the network. If the peer is
    /// dead, each answer that names it costs the asking peer a dial that times out. Runs on the swarm task and must not
    /// block.
    ///
    /// A peer that closes idle connections in order is checked only as often as the refresh job checks it. Otherwise
    /// the connection of one check, once idle and closed, would lead to the next check.
    pub(crate) fn left(&self, peer: PeerId, in_order: bool) {
        let now = self.clock.monotonic();
        for dht in Dht::ALL {
            let table = self.tables.of(dht);
            let Some(known) = table.view().get(&peer).map(|entry| entry.peer.clone()) else { continue };
            let seldom = if in_order { UNHEARD } else { RECHECK_SELDOM };
            if table.may_check_left(peer, now, seldom) {
                self.recheck(dht, known, RECHECK_PAUSE + RECHECK_PAUSE.mul_f64(rand::random()));
            }
        }
    }

    /// Checks a table peer that went quiet, retrying once so that one lost answer does not remove it (RT-5). Returns
    /// whether it stays.
    pub(super) async fn check_twice(&self, dht: Dht, peer: &PeerInfo) -> bool {
        match self.probe(dht, peer).await {
            Ok(at) => {
                self.tables.of(dht).reached(&peer.id, &at, self.clock.monotonic());
                true
            }
            Err(_) => {
                sleep(RECHECK_PAUSE).await;
                self.check(dht, peer).await
            }
        }
    }

    /// Probes a peer of the table and removes it if it does not answer. Returns whether it stays.
    pub(super) async fn check(&self, dht: Dht, peer: &PeerInfo) -> bool {
        match self.probe(dht, peer).await {
            Ok(at) => {
                self.tables.of(dht).reached(&peer.id, &at, self.clock.monotonic());
                true
            }
            Err(RpcError::Busy(_) | RpcError::Stopped) => true,
            // RT-5: if no peer is connected at all, our own network has probably failed.
            Err(RpcError::Dial(why))
                if !why.to_string().contains("refused") && !self.peers.contacts.has_connections() =>
            {
                true
            }
            Err(RpcError::Timeout(_)) if !self.peers.contacts.has_connections() => true,
            Err(error) => {
                self.remove(dht, &peer.id, &error.to_string());
                false
            }
        }
    }

    fn remove(&self, dht: Dht, peer: &PeerId, why: &str) {
        if self.tables.of(dht).remove(peer) {
            self.metrics.peers_removed.inc();
            debug!(%peer, dht = dht.name(), why, "removed from the routing table");
        }
    }

    /// Warns once if Kubo's default reprovide interval is longer than the ttl: see docs/decisions/kademlia.md. One
    /// warning is enough, because the operator changes the interval on all Kubo nodes at once.
    fn warn_of_kubo_interval(&self, peer: &PeerId, agent: &str) {
        let ttl = self.record_ttl;
        if ttl < KUBO_INTERVAL && agent.starts_with("kubo/") && !self.kubo_warned.swap(true, Ordering::Relaxed) {
            warn!(
                %peer,
                agent,
                ttl = %humantime::format_duration(ttl),
                "by default Kubo announces its CIDs every 22 h, and this node drops records earlier, so that they are \
                 missing until the next announcement; run `ipfs config Provide.DHT.Interval 10h` on each Kubo node, \
                 or raise `records.ttl`"
            );
        }
    }
}

/// Returns the peer with those of its addresses that belong to `scope` (RT-3), or `None` if it must not enter a table
/// with that scope. For the LAN DHT, one of its connections, at `seen_at`, must come from the local network (LAN-1):
/// other peers may have named a private address of a peer that is elsewhere.
fn fitting(scope: AddressScope, peer: &PeerInfo, seen_at: &[Multiaddr]) -> Option<PeerInfo> {
    let addrs: Vec<Multiaddr> = peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect();
    let here = scope != AddressScope::Private || seen_at.iter().any(|addr| scope.allows(addr));
    (here && !addrs.is_empty()).then_some(PeerInfo { id: peer.id, addrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peer(texts: &[&str]) -> PeerInfo {
        PeerInfo { id: PeerId::random(), addrs: addrs(texts) }
    }

    #[test]
    fn rt_3_only_public_addresses_enter_the_table_of_a_public_dht() {
        let public = |peer: &PeerInfo| Some(fitting(AddressScope::Public, peer, &[])?.addrs);
        let mixed = peer(&["/ip4/10.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/1", "/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(public(&mixed), Some(addrs(&["/ip4/1.2.3.4/tcp/1"])));
        assert_eq!(public(&peer(&["/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1"])), None);
        let relay = format!("/ip4/1.2.3.4/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        assert_eq!(public(&peer(&[&relay])), None);
    }

    #[test]
    fn lan_1_who_is_connected_from_elsewhere_only_does_not_enter_a_lans_table() {
        let claims = peer(&["/ip4/10.0.0.5/tcp/4001", "/ip4/8.8.8.8/tcp/4001"]);
        let lan = |seen_at: &[&str]| Some(fitting(AddressScope::Private, &claims, &addrs(seen_at))?.addrs);
        assert_eq!(lan(&["/ip4/8.8.8.8/tcp/40000"]), None);
        assert_eq!(lan(&[]), None);
        let here = Some(addrs(&["/ip4/10.0.0.5/tcp/4001"]));
        assert_eq!(lan(&["/ip4/10.0.0.5/tcp/40000"]), here);
        assert_eq!(lan(&["/ip4/8.8.8.8/tcp/40000", "/ip4/10.0.0.5/udp/4001/quic-v1"]), here);
        // A private network has no such restriction.
        assert!(fitting(AddressScope::Any, &claims, &addrs(&["/ip4/8.8.8.8/tcp/40000"])).is_some());
    }
}
