//! Asking the network: providers, peers, closest servers; connecting.

use super::{
    super::{
        protocol::{Closest, Failure, Peer},
        server::{Replies, done},
    },
    Parts, Query, parse, provider_addresses, texts, to_peer,
};
use crate::{
    kad::{
        Dht, cids,
        keyspace::Key,
        peer_id::{parse_multiaddr, parse_peer_id},
        scope::{reach, relay_address},
        table::K,
        useful,
    },
    node::{RpcError, lookup::Event},
    transport::addresses::{UNSPOKEN, can_dial},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde_json::Value;
use std::collections::HashSet;

/// Providers that one query returns at most.
pub(super) const PROVIDERS_MAX: usize = 10_000;

pub(super) async fn providers(parts: &Parts, cid: &str, limit: usize, replies: Replies) -> Result<Value, Failure> {
    let multihash = parse(cid)?.hash().to_bytes();
    let mut query = Query::start(|events| parts.node.find_providers(&multihash, limit, Some(events)));
    let mut seen: HashSet<String> = HashSet::new();
    while let Some(event) = query.event().await {
        replies.event(&event).await?;
        // Shown as they are found; not before they come with an address, since the next answer may bring one.
        if let Event::Provider { provider, addresses, .. } = event
            && !addresses.is_empty()
            && seen.len() < limit
            && seen.insert(provider.clone())
        {
            replies.row(&Peer { peer: provider, addresses }).await?;
        }
    }
    let found = query.finish(&replies).await?;
    for peer in &found {
        if seen.len() < limit && seen.insert(peer.id.to_string()) {
            replies.row(&to_peer(peer)).await?;
        }
    }
    done(&seen.len())
}

/// What this node itself would answer.
pub(super) async fn local_providers(
    parts: &Parts,
    cid: &str,
    limit: usize,
    replies: Replies,
) -> Result<Value, Failure> {
    let multihash = parse(cid)?.hash().to_bytes();
    let own = {
        let (provided, multihash) = (parts.store.provided.clone(), multihash.clone());
        tokio::task::spawn_blocking(move || provided.contains(&multihash)).await.map_err(Failure::other)?
    };
    let mut count = 0usize;
    if own {
        let peer = Peer { peer: parts.node.peer_id().to_string(), addresses: provider_addresses(parts) };
        replies.row(&peer).await?;
        count += 1;
    }
    for provider in
        parts.store.records.providers(&multihash, limit.saturating_sub(count), u64::from(parts.clock.wall().0)).await
    {
        let addresses = texts(useful::bounded(provider.addrs.to_vec()));
        replies.row(&Peer { peer: provider.peer.to_string(), addresses }).await?;
        count += 1;
    }
    done(&count)
}

pub(super) async fn peer(parts: &Parts, peer: &str, replies: Replies) -> Result<Value, Failure> {
    let id: PeerId = parse_peer_id(peer).map_err(|error| Failure::data(format_args!("{peer}: {error}")))?;
    let found = Query::start(|events| parts.node.find_peer(&id, Some(events))).finish(&replies).await?;
    match found {
        Some(peer) => {
            replies.row(&to_peer(&peer)).await?;
            done(&1)
        }
        None => done(&0),
    }
}

pub(super) async fn closest(parts: &Parts, key: &str, local: bool, replies: Replies) -> Result<Value, Failure> {
    let target = cids::parse_key(key).map_err(|error| Failure::data(format_args!("{key}: {error}")))?;
    let place = cids::place(&target);
    let mut count = 0usize;
    for dht in Dht::ALL {
        if parts.node.table(dht).is_empty() {
            continue;
        }
        let peers = if local {
            parts.node.table(dht).closest(&place, K).into_iter().map(|entry| entry.peer.clone()).collect()
        } else {
            let query = Query::start(|events| parts.node.closest_peers(dht, &target, Some(events)));
            query.finish(&replies).await?.peers
        };
        for peer in peers {
            let server = Key::for_peer(&peer.id);
            let row = Closest {
                dht: dht.name().into(),
                peer: peer.id.to_string(),
                cpl: server.common_prefix_length(&place),
                distance: xor(&server, &place),
                addresses: texts(&peer.addrs),
            };
            replies.row(&row).await?;
            count += 1;
        }
    }
    done(&count)
}

/// XOR distance, base16.
fn xor(a: &Key, b: &Key) -> String {
    a.as_bytes().iter().zip(b.as_bytes()).map(|(a, b)| format!("{:02x}", a ^ b)).collect()
}

pub(super) async fn connect(parts: &Parts, address: &str) -> Result<Value, Failure> {
    let addr: Multiaddr =
        parse_multiaddr(address).map_err(|error| Failure::data(format_args!("{address}: not a multiaddr: {error}")))?;
    let own = parts.node.peer_id();
    let data = |reason: &str| Failure::data(format_args!("cannot connect to {address}: {reason}"));
    if addr.iter().last() == Some(Protocol::P2p(own)) {
        return Err(data(OWN));
    }
    if addr.iter().any(|part| part == Protocol::P2pCircuit) {
        return Err(data("it leads through a relay, and dhtstore dials none; give an address of the peer itself"));
    }
    if let Some(peer) = only_peer(&addr) {
        return connect_to(parts, peer).await;
    }
    if reach(&addr).is_none() {
        return Err(Failure::data(format_args!(
            "{address}: nobody can dial it; give host and port, like /ip4/192.0.2.7/tcp/4001 or /dns/example.net/udp/4001/quic-v1"
        )));
    }
    if !can_dial(&addr) {
        return Err(data(UNSPOKEN));
    }
    let peer = parts.node.connect(addr).await.map_err(|error| match error {
        RpcError::Own => data(OWN),
        error => refused(address, &error),
    })?;
    done(&Peer { peer: peer.to_string(), addresses: vec![address.to_owned()] })
}

/// What is said of this node's own address.
const OWN: &str =
    "that is this node itself; give the address of another one, as `dhtstore id` prints it there, with its /p2p/ID";

/// The peer of `/p2p/ID`, with nothing in front.
fn only_peer(addr: &Multiaddr) -> Option<PeerId> {
    let mut parts = addr.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::P2p(peer)), None) => Some(peer),
        _ => None,
    }
}

/// Connects to a peer that was named by its id alone, at the addresses that this node or the network knows.
async fn connect_to(parts: &Parts, peer: PeerId) -> Result<Value, Failure> {
    let unknown = |reason: &str| {
        Failure::other(format_args!(
            "cannot connect to {peer}: {reason}; give its address, like /ip4/192.0.2.7/tcp/4001/p2p/{peer}"
        ))
    };
    let found = parts.node.find_peer(&peer, None).await;
    let found = found.ok_or_else(|| unknown("neither this node nor the network knows an address of it"))?;
    if parts.node.dialable(&found).is_empty() && found.addrs.iter().any(|addr| relay_address(addr).is_some()) {
        return Err(unknown("only addresses through relays are known, and dhtstore dials none"));
    }
    let peer = parts.node.connect_to(&found).await.map_err(|error| refused(&peer.to_string(), &error))?;
    done(&Peer { peer: peer.to_string(), addresses: texts(&found.addrs) })
}

fn refused(whom: &str, error: &RpcError) -> Failure {
    match error {
        RpcError::Dial(reason) => Failure::other(format_args!(
            "cannot connect to {whom}: {reason}; check host, port and the id behind /p2p/, and that the peer runs"
        )),
        RpcError::Timeout(_) => Failure::other(format_args!(
            "cannot connect to {whom}: {error}; check that the peer runs and that no firewall is in between"
        )),
        RpcError::Busy(_) => Failure::other(format_args!("cannot connect to {whom}: {error}; try again later")),
        error => Failure::other(format_args!("cannot connect to {whom}: {error}")),
    }
}
