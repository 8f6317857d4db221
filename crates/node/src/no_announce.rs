//! The rules of the setting `no_announce`.

use libp2p::{Multiaddr, multiaddr::Protocol};
use std::net::IpAddr;

/// Returns whether none of `rules` covers `addr`.
pub fn allows(rules: &[Multiaddr], addr: &Multiaddr) -> bool {
    !rules.iter().any(|rule| matches(rule, addr))
}

/// Returns whether `rule` covers `addr`. A range such as `/ip4/10.0.0.0/ipcidr/8` (or `/ip6/…`) covers every address
/// that begins with an IP in the range. Any other rule covers only the same address; a trailing `/p2p/<id>` on either
/// side is ignored.
pub fn matches(rule: &Multiaddr, addr: &Multiaddr) -> bool {
    match range(rule) {
        Some(Ok((network, bits))) => first_ip(addr).is_some_and(|ip| within(ip, network, bits)),
        Some(Err(_)) => false,
        None => without_peer(rule) == without_peer(addr),
    }
}

/// Returns the range that a rule names, `None` if it names no range, or an error if the range is malformed.
pub fn range(rule: &Multiaddr) -> Option<Result<(IpAddr, u8), String>> {
    let parts: Vec<_> = rule.iter().collect();
    let position = parts.iter().position(|p| matches!(p, Protocol::Ipcidr(_)))?;
    let Protocol::Ipcidr(bits) = parts[position] else { return None };
    let ip = match parts.as_slice() {
        [Protocol::Ip4(ip), Protocol::Ipcidr(_)] => IpAddr::from(*ip),
        [Protocol::Ip6(ip), Protocol::Ipcidr(_)] => IpAddr::from(*ip),
        _ => return Some(Err(format!("\"{rule}\" is not a range; write one like \"/ip4/10.0.0.0/ipcidr/8\""))),
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if bits > most {
        return Some(Err(format!("\"{rule}\": a prefix of {bits} bits is longer than an address ({most} bits)")));
    }
    Some(Ok((ip, bits)))
}

fn first_ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    // A prefix of 0 bits shifts by the whole width, which gives 0 on both sides: such a range contains every address.
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(bits));
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => same(u32::from(ip).into(), u32::from(network).into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => same(ip.into(), network.into(), 128),
        _ => false,
    }
}

fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(rule: &str, addr: &str) -> bool {
        matches(&rule.parse().unwrap(), &addr.parse().unwrap())
    }

    #[test]
    fn a_range_covers_the_addresses_in_it() {
        assert!(covers("/ip4/10.0.0.0/ipcidr/8", "/ip4/10.1.2.3/tcp/4001"));
        assert!(!covers("/ip4/10.0.0.0/ipcidr/8", "/ip4/11.0.0.1/tcp/4001"));
        assert!(covers("/ip4/0.0.0.0/ipcidr/0", "/ip4/203.0.113.9/udp/4001/quic-v1"));
        assert!(covers("/ip6/fe80::/ipcidr/10", "/ip6/fe80::1/tcp/4001"));
        assert!(!covers("/ip6/::/ipcidr/0", "/ip4/10.0.0.1/tcp/4001"));
        assert!(!covers("/ip4/10.0.0.0/ipcidr/8", "/dns4/example.org/tcp/4001"));
    }

    #[test]
    fn an_address_covers_itself_with_or_without_peer_id() {
        let peer = "/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
        assert!(covers("/ip4/10.0.0.1/tcp/4001", &format!("/ip4/10.0.0.1/tcp/4001{peer}")));
        assert!(!covers("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4002"));
    }

    #[test]
    fn malformed_ranges_say_what_is_wrong() {
        for rule in ["/ip4/10.0.0.0/ipcidr/33", "/ip4/10.0.0.0/tcp/1/ipcidr/8", "/ipcidr/8"] {
            let rule: Multiaddr = rule.parse().unwrap();
            assert!(matches!(range(&rule), Some(Err(_))), "{rule}");
        }
    }

    proptest! {
        #[test]
        fn longer_prefixes_cover_less(ip: u32, network: u32, bits in 0u8..32) {
            let (ip, network) = (IpAddr::from(ip.to_be_bytes()), IpAddr::from(network.to_be_bytes()));
            prop_assert!(!within(ip, network, bits + 1) || within(ip, network, bits));
            prop_assert!(within(ip, ip, bits));
        }
    }
}
