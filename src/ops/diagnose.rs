//! Finds out why a CID is found, or is not: asks each of the closest servers, and dials the providers that they name.

use super::{
    Ops, OpsError,
    verify::{Asked, ask_closest, dialable},
};
use crate::{
    kad::{Cid, Dht, PeerInfo, keyspace::Key, scope::relay_address},
    node::RpcError,
};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::sync::mpsc;

/// Most providers to dial.
const DIAL_MAX: usize = 20;
/// Providers dialled at the same time.
const PARALLEL_DIALS: usize = 10;
/// Most records of the own store to look at.
const LOCAL_MAX: usize = 100;

/// A step of a diagnosis.
#[derive(Clone, Debug)]
pub enum Finding {
    /// One of the closest servers.
    Server {
        /// The DHT that it serves.
        dht: Dht,
        /// Its peer id.
        peer: PeerId,
        /// Common prefix length of its key and the key of the CID, in bits.
        cpl: u16,
        /// The providers that it named, or why it did not answer.
        answer: Result<Vec<PeerId>, RpcError>,
    },
    /// A provider that a server or the own store named.
    Provider {
        /// Its peer id, and its addresses from all answers.
        provider: PeerInfo,
        /// The number of closest servers that named it.
        named_by: usize,
        /// Age of the record that this node holds; `None` if it holds none. Servers do not report ages.
        age: Option<Duration>,
        /// Time that a dial took, or why it failed. `None` for this node, which cannot dial itself.
        dialled: Result<Option<Duration>, Undialled>,
    },
}

/// Why a provider was not reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Undialled {
    /// Other peers may reach it through a relay.
    #[error("not tried: its addresses lead through relays, which dhtstore does not dial")]
    Relayed,
    /// There is no address to dial.
    #[error("no addresses: the records have none, and no server knows the peer")]
    Unknown,
    /// The dial failed.
    #[error(transparent)]
    Failed(#[from] RpcError),
}

/// The conclusion from all findings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether the CID is found and a provider can be dialled.
    pub ok: bool,
    /// The conclusion in one line.
    pub verdict: String,
    /// What to do about it.
    pub next: Option<String>,
}

/// A provider, as learnt from all answers.
#[derive(Debug, Default)]
struct Known {
    addrs: Vec<Multiaddr>,
    named_by: BTreeSet<PeerId>,
    age: Option<Duration>,
}

impl Known {
    fn learn(&mut self, addrs: impl IntoIterator<Item = Multiaddr>) {
        for addr in addrs {
            if !self.addrs.contains(&addr) {
                self.addrs.push(addr);
            }
        }
    }
}

/// Counts that the verdict depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums {
    /// Servers asked. A server in both DHTs counts once, here and below.
    asked: usize,
    /// Servers that answered.
    answered: usize,
    /// Servers that hold a record.
    holding: usize,
    providers: usize,
    with_addresses: usize,
    dialable: usize,
    /// Providers that this node does not dial, because they have addresses through relays and none that it may dial
    /// directly.
    relayed: usize,
    /// This node announces the CID itself.
    own: bool,
}

impl Ops {
    /// Asks each of the servers closest to a CID, and dials up to 20 of the providers that they name. Each finding goes
    /// to `events`. Returns the conclusion.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn diagnose(&self, cid: &Cid, events: mpsc::Sender<Finding>) -> Result<Verdict, OpsError> {
        let (handles, multihash) = (&self.handles, cid.hash().to_bytes());
        let place = Key::for_content(&multihash);
        let mut sums = Sums::default();
        let mut providers: BTreeMap<PeerId, Known> = BTreeMap::new();
        let (wan, lan) = tokio::join!(
            ask_closest(&handles.node, Dht::Wan, &multihash),
            ask_closest(&handles.node, Dht::Lan, &multihash)
        );
        let [mut servers, mut answered, mut holding] = [(); 3].map(|()| BTreeSet::new());
        for asked in wan.into_iter().chain(lan) {
            let server = asked.server.id;
            servers.insert(server);
            // An error means that nobody reads the events, which does not change the verdict.
            let _ = events.send(of_server(&asked, &place)).await;
            let Ok(named) = asked.answer else { continue };
            answered.insert(server);
            for provider in named {
                holding.insert(server);
                let known = providers.entry(provider.id).or_default();
                known.named_by.insert(server);
                known.learn(provider.addrs);
            }
        }
        (sums.asked, sums.answered, sums.holding) = (servers.len(), answered.len(), holding.len());
        let now = handles.clock.wall();
        for record in handles.store.records.providers(&multihash, LOCAL_MAX, 0).await {
            let known = providers.entry(record.peer).or_default();
            known.age = Some(now.since(record.received));
            known.learn(record.addrs.to_vec());
        }
        let provided = handles.store.provided.clone();
        if let Some(announced) = tokio::task::spawn_blocking(move || provided.get(&multihash)).await? {
            sums.own = true;
            if let Some(known) = providers.get_mut(&self.peer_id()) {
                known.age = announced.announced.map(|at| now.since(at));
            }
        }
        let mut dials = futures::stream::iter(providers.into_iter().take(DIAL_MAX))
            .map(|(peer, known)| self.dial(peer, known))
            .buffered(PARALLEL_DIALS);
        while let Some(finding) = dials.next().await {
            if let Finding::Provider { provider, dialled, .. } = &finding {
                sums.providers += 1;
                sums.with_addresses += usize::from(!provider.addrs.is_empty());
                sums.dialable += usize::from(dialled.is_ok());
                sums.relayed += usize::from(matches!(dialled, Err(Undialled::Relayed)));
            }
            let _ = events.send(finding).await;
        }
        let mut verdict = verdict(&sums);
        let failing: Vec<String> = handles
            .node
            .bootstrap()
            .into_iter()
            .filter_map(|peer| Some(format!("{}: {}", peer.addresses.join(", "), peer.error?)))
            .collect();
        if sums.asked == 0 && !failing.is_empty() {
            verdict.next =
                Some(format!("correct the bootstrap list: its peers do not answer ({})", failing.join("; ")));
        }
        Ok(verdict)
    }

    async fn dial(&self, peer: PeerId, mut known: Known) -> Finding {
        let node = &self.handles.node;
        // Its private addresses are not dialled on the public network.
        let is_relayed = |addrs: &[Multiaddr]| {
            let info = PeerInfo { id: peer, addrs: addrs.to_vec() };
            addrs.iter().any(|addr| relay_address(addr).is_some()) && node.dialable(&info).is_empty()
        };
        known.addrs.sort_by_key(|addr| relay_address(addr).is_some());
        let provider = PeerInfo { id: peer, addrs: known.addrs };
        let dialled = if peer == self.peer_id() && self.handles.config.provide.addresses.is_empty() {
            // A node cannot dial itself. Only other peers know whether they can dial it.
            Ok(None)
        } else if provider.addrs.is_empty() {
            // The records have no addresses, but a server may know some.
            match node.find_peer(&peer, None).await {
                Some(found) if is_relayed(&found.addrs) => Err(Undialled::Relayed),
                Some(found) => dialable(node, &found).await.map(Some).map_err(Undialled::from),
                None => Err(Undialled::Unknown),
            }
        } else if is_relayed(&provider.addrs) {
            Err(Undialled::Relayed)
        } else {
            dialable(node, &provider).await.map(Some).map_err(Undialled::from)
        };
        Finding::Provider { provider, named_by: known.named_by.len(), age: known.age, dialled }
    }
}

fn of_server(asked: &Asked, place: &Key) -> Finding {
    let named = |providers: &Vec<PeerInfo>| providers.iter().map(|provider| provider.id).collect();
    Finding::Server {
        dht: asked.dht,
        peer: asked.server.id,
        cpl: Key::for_peer(&asked.server.id).common_prefix_length(place),
        answer: asked.answer.as_ref().map(named).map_err(Clone::clone),
    }
}

fn verdict(sums: &Sums) -> Verdict {
    let &Sums { asked, answered, holding, providers, with_addresses, dialable, relayed, own } = sums;
    let judge = |ok: bool, verdict: String, next: Option<&str>| Verdict { ok, verdict, next: next.map(str::to_owned) };
    if asked == 0 && providers == 0 {
        let next = "connect this node to a network: `dhtstore connect MULTIADDR`, or set bootstrap";
        return judge(false, "this node knows no servers to ask".into(), Some(next));
    }
    if asked > 0 && answered == 0 {
        let next = "check the connection to the network: see `dhtstore peers` and the log";
        return judge(false, format!("none of the {asked} closest servers answers"), Some(next));
    }
    if providers == 0 {
        let next = if own {
            "it is an own CID of this node, but no server has it: run `dhtstore reprovide`, then ask again"
        } else {
            "announce it where the content is: `ipfs routing provide CID` on a Kubo node, or `dhtstore provide CID`; \
             if it was announced before, its records have expired"
        };
        return judge(
            false,
            format!("no records: {answered} of the {asked} closest servers answer, none holds one"),
            Some(next),
        );
    }
    let held = match (asked, holding) {
        (0, _) => "held by this node alone".to_owned(),
        _ => format!("held by {holding} of the {asked} closest servers"),
    };
    if dialable > 0 {
        let next = (asked > 0 && holding == 0)
            .then_some("announce it again: only this node holds the record, so other peers do not find it");
        let found = asked == 0 || holding > 0;
        let what = if found { "found and dialable" } else { "not found by others" };
        return judge(found, format!("{what}: {held}, {dialable} of {providers} providers can be dialled"), next);
    }
    if relayed > 0 {
        let next = "ask a node that dials relays: `ipfs swarm connect CIRCUIT/p2p/PROVIDER` with an address from above";
        let verdict = format!("found, reachable through relays only: {held}, {relayed} of {providers} providers");
        return judge(false, verdict, Some(next));
    }
    if with_addresses == 0 {
        let next =
            "let the providers announce again, with addresses that other peers can reach (on Kubo: Addresses.Announce)";
        return judge(false, format!("records without addresses: {held}, {providers} providers"), Some(next));
    }
    let next =
        "check that the providers run, that their port is open in NAT and firewall, and which addresses they announce";
    judge(false, format!("found but not dialable: {held}, none of {providers} providers can be dialled"), Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sums: Sums) -> (bool, String) {
        let verdict = verdict(&sums);
        assert!(verdict.ok || verdict.next.is_some(), "a failure has a next step");
        (verdict.ok, verdict.verdict)
    }

    #[test]
    fn each_case_has_its_verdict() {
        let asked = Sums { asked: 20, answered: 18, ..Sums::default() };
        let held = Sums { holding: 15, providers: 2, ..asked };
        for (sums, ok, words) in [
            (Sums::default(), false, "knows no servers"),
            (Sums { asked: 20, ..Sums::default() }, false, "none of the 20 closest servers answers"),
            (asked, false, "no records"),
            (held, false, "records without addresses"),
            (Sums { with_addresses: 2, ..held }, false, "found but not dialable"),
            (Sums { with_addresses: 2, dialable: 1, ..held }, true, "found and dialable"),
            (Sums { with_addresses: 2, relayed: 1, ..held }, false, "through relays only"),
            (Sums { holding: 0, with_addresses: 2, dialable: 1, ..held }, false, "not found by others"),
        ] {
            let (found, verdict) = said(sums);
            assert!(found == ok && verdict.contains(words), "{sums:?}: {verdict}");
        }
    }
}
