//! Which addresses belong to which DHT, and which IP group an address is of.

use libp2p::Multiaddr;

/// The addresses that a DHT keeps and hands out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressScope {
    /// Every dialable address (profile `private`).
    Any,
    /// Globally routable ones only (SRV-3, PRV-7).
    Public,
    /// Private ranges and link-local only; no loopback.
    Private,
}

#[expect(unused_variables, missing_docs)]
impl AddressScope {
    pub fn allows(self, addr: &Multiaddr) -> bool {
        todo!()
    }
}

/// The group that IP diversity counts by (RT-6): /16 or legacy /8 of IPv4, /32 of IPv6. `None` without an IP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IpGroup(pub [u8; 5]);

#[expect(unused_variables, missing_docs)]
pub fn ip_group(addr: &Multiaddr) -> Option<IpGroup> {
    todo!()
}
/// Without a trailing `/p2p/<peer>`; `None` if it names another peer or is a relay address.
#[expect(unused_variables)]
pub fn strip_peer(addr: Multiaddr, peer: &libp2p::PeerId) -> Option<Multiaddr> {
    todo!()
}
