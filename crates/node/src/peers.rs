//! Peers: ourselves as others are told, those that are or were lately connected, and their open connections.

pub(crate) mod addresses;
pub(crate) mod connections;
pub(crate) mod contacts;

use crate::{
    kad::{
        Dht, PeerInfo,
        message::EncodedPeer,
        scope::{AddressScope, Profile},
        useful::most_useful,
    },
    settings::Settings,
};
use addresses::Addresses;
use connections::Connections;
use contacts::Contacts;
use libp2p::{Multiaddr, PeerId};

/// What a node knows of peers, itself included. The tables are elsewhere.
#[derive(Debug)]
pub(crate) struct Peers {
    /// This node.
    pub(crate) local: PeerId,
    profile: Profile,
    /// Where content is served that this node provides; empty: where the node is.
    elsewhere: Vec<Multiaddr>,
    /// Our own addresses.
    pub(crate) addresses: Addresses,
    pub(crate) contacts: Contacts,
    pub(crate) connections: Connections,
}

impl Peers {
    pub(crate) fn new(local: PeerId, settings: &Settings) -> Self {
        Self {
            local,
            profile: settings.profile,
            elsewhere: settings.provider_addresses.clone(),
            addresses: Addresses::new(settings),
            contacts: Contacts::default(),
            connections: Connections::default(),
        }
    }

    /// The addresses that `dht` keeps and hands out.
    pub(crate) fn scope(&self, dht: Dht) -> AddressScope {
        self.profile.scope(dht)
    }

    /// Where content is served that we provide, as `dht` is told.
    pub(crate) fn provider_addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        if self.elsewhere.is_empty() {
            return self.addresses.of(dht);
        }
        let scope = self.scope(dht);
        most_useful(self.elsewhere.iter().filter(|addr| scope.hands_out(addr)).cloned().collect())
    }

    /// Ourselves as a provider.
    pub(crate) fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        EncodedPeer::new(&self.local, &self.provider_addresses(dht))
    }

    /// Where others can reach a peer in `dht` that is or was lately connected, as it says by identify.
    pub(crate) fn identified_addresses(&self, dht: Dht, peer: &PeerId) -> Vec<Multiaddr> {
        let scope = self.scope(dht);
        let known = self.contacts.addresses(peer).map(|known| known.addrs).unwrap_or_default();
        most_useful(known.into_iter().filter(|addr| scope.hands_out(addr)).collect())
    }

    /// Those of a peer's addresses that may be dialled in `dht`.
    pub(crate) fn dialable(&self, dht: Dht, peer: &PeerInfo) -> Vec<Multiaddr> {
        let scope = self.scope(dht);
        peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }
}
