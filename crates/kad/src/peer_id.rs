//! Parses the text forms of a peer id. By the peer id specification, a decoder MUST accept the base58 multihash
//! (`12D3…`, `Qm…`), and a CIDv1 with the multicodec libp2p-key in any multibase (`k51…`, `bafz…`, `z5A…`).

use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

/// The multicodec of a CID that is a peer id.
pub const LIBP2P_KEY: u64 = 0x72;

/// Why text is not a peer id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPeerId {
    /// It has neither form.
    #[error("not a peer id, which looks like 12D3KooW…, Qm…, k51… or bafz…")]
    Malformed,
    /// It is a CID with another multicodec.
    #[error("this is the CID of content, not of a peer's key")]
    Content,
}

/// Parses a peer id in any of its forms.
pub fn parse_peer_id(text: &str) -> Result<PeerId, BadPeerId> {
    if let Ok(peer) = text.parse::<PeerId>() {
        return Ok(peer);
    }
    let cid = Cid::try_from(text).map_err(|_| BadPeerId::Malformed)?;
    if cid.codec() != LIBP2P_KEY {
        return Err(BadPeerId::Content);
    }
    PeerId::from_bytes(&cid.hash().to_bytes()).map_err(|_| BadPeerId::Malformed)
}

/// Parses a multiaddr whose peer ids (after `/p2p/` or the older `/ipfs/`) may have any form.
pub fn parse_multiaddr(text: &str) -> Result<Multiaddr, multiaddr::Error> {
    with_base58_peers(text).parse()
}

/// Rewrites the peer ids in the text of a multiaddr to base58, the only form that libp2p parses. Other text stays
/// unchanged.
pub fn with_base58_peers(text: &str) -> String {
    let mut names_peer = false;
    let parts = text.split('/').map(|part| {
        let is_peer = std::mem::replace(&mut names_peer, matches!(part, "p2p" | "ipfs"));
        match is_peer.then(|| parse_peer_id(part)) {
            Some(Ok(peer)) => peer.to_base58(),
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cid::multibase::Base;
    use proptest::prelude::*;

    /// Every way to write a peer id as a CID.
    fn forms(peer: &PeerId) -> Vec<String> {
        let hash = cid::multihash::Multihash::from_bytes(&peer.to_bytes()).unwrap();
        let cid = Cid::new_v1(LIBP2P_KEY, hash);
        let bases = [Base::Base36Lower, Base::Base32Lower, Base::Base58Btc, Base::Base16Lower, Base::Base64Url];
        let mut forms: Vec<_> = bases.iter().map(|base| cid.to_string_of_base(*base).unwrap()).collect();
        forms.push(peer.to_base58());
        forms
    }

    #[test]
    fn every_form_of_a_peer_id_is_the_same_peer_also_within_an_address() {
        for text in
            ["12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS", "QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"]
        {
            let peer: PeerId = text.parse().unwrap();
            let plain: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{text}").parse().unwrap();
            for form in forms(&peer) {
                assert_eq!(parse_peer_id(&form), Ok(peer), "{form}");
                for name in ["p2p", "ipfs"] {
                    assert_eq!(parse_multiaddr(&format!("/ip4/1.2.3.4/tcp/1/{name}/{form}")).unwrap(), plain, "{form}");
                }
            }
        }
    }

    #[test]
    fn the_cid_of_content_is_no_peer_id() {
        assert_eq!(parse_peer_id("bafkqaaa"), Err(BadPeerId::Content));
        assert_eq!(parse_peer_id("hello"), Err(BadPeerId::Malformed));
        assert_eq!(with_base58_peers("/dns/p2p/tcp/1"), "/dns/p2p/tcp/1");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (parse_peer_id(&text), parse_multiaddr(&text));
        }
    }
}
