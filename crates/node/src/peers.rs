//! Peers: our own addresses, the peers that are or recently were connected, and their open connections.

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

/// What a node knows about peers, itself included. The routing tables are elsewhere.
#[derive(Debug)]
pub(crate) struct Peers {
    /// This node.
    pub(crate) local: PeerId,
    profile: Profile,
    /// Addresses announced in provider records (`provide.addresses`); if empty, the node's own.
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

    /// Returns the scope of the addresses that `dht` keeps and hands out.
    pub(crate) fn scope(&self, dht: Dht) -> AddressScope {
        self.profile.scope(dht)
    }

    /// Returns the addresses that our provider records carry in `dht`.
    pub(crate) fn provider_addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        if self.elsewhere.is_empty() {
            return self.addresses.of(dht);
        }
        let scope = self.scope(dht);
        most_useful(self.elsewhere.iter().filter(|addr| scope.hands_out(addr)).cloned().collect())
    }

    /// Returns the entry that names this node as a provider.
    pub(crate) fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        EncodedPeer::new(&self.local, &self.provider_addresses(dht))
    }

    /// Returns the addresses that a peer gave by identify and that may be handed out in `dht`. Empty if it was not
    /// connected recently.
    pub(crate) fn identified_addresses(&self, dht: Dht, peer: &PeerId) -> Vec<Multiaddr> {
        let scope = self.scope(dht);
        let known = self.contacts.addresses(peer).map(|known| known.addrs).unwrap_or_default();
        most_useful(known.into_iter().filter(|addr| scope.hands_out(addr)).collect())
    }

    /// Returns those of a peer's addresses that may be dialled in `dht`.
    pub(crate) fn dialable(&self, dht: Dht, peer: &PeerInfo) -> Vec<Multiaddr> {
        let scope = self.scope(dht);
        peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }
}
