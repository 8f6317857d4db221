//! Parses and prints keys of values: `/ipns/` or `/pk/` followed by a peer id.

use super::{ipns, pk};
use crate::peer_id::{BadPeerId, LIBP2P_KEY, parse_peer_id};
use cid::{Cid, multibase::Base};
use libp2p_identity::PeerId;

/// Longest text that is parsed. Names have some 70 characters.
const MAX_TEXT: usize = 256;

/// Why text is not a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a key of a value: {0}; write /ipns/NAME or /pk/PEER with a peer id (12D3…, Qm…) or k51…")]
pub struct BadKey(&'static str);

/// Parses a key. A name is a peer id, in base58 or as a CID with the codec libp2p-key in any base. `/ipns/` may be
/// omitted.
pub fn parse(text: &str) -> Result<Vec<u8>, BadKey> {
    if text.len() > MAX_TEXT {
        return Err(BadKey("too long"));
    }
    let (prefix, name) = match text.strip_prefix("/pk/") {
        Some(name) => (pk::PREFIX, name),
        None => (ipns::PREFIX, text.strip_prefix("/ipns/").unwrap_or(text)),
    };
    let name = name.trim_end_matches('/');
    if name.contains('/') {
        return Err(BadKey("the name is followed by a path, or the key is of another kind"));
    }
    if name.contains('.') {
        return Err(BadKey("this is a DNS name: its record is in the DNS, not in the DHT"));
    }
    let peer = parse_peer_id(name).map_err(|error| match error {
        BadPeerId::Malformed => BadKey("the name is not a peer id"),
        BadPeerId::Content => BadKey("this is the CID of content, not of a key"),
    })?;
    Ok([prefix, &peer.to_bytes()].concat())
}

/// Prints a key as Kubo does: an IPNS name in base36, the peer of a public key in base58. Prints anything else in
/// base16.
pub fn show(key: &[u8]) -> String {
    let peer = |prefix: &[u8]| PeerId::from_bytes(key.strip_prefix(prefix)?).ok();
    if let Some(peer) = peer(pk::PREFIX) {
        return format!("/pk/{peer}");
    }
    let name = peer(ipns::PREFIX).and_then(|peer| name(&peer));
    name.map_or_else(|| Base::Base16Lower.encode(key), |name| format!("/ipns/{name}"))
}

/// Prints a peer id as an IPNS name, `k51…`.
fn name(peer: &PeerId) -> Option<String> {
    let multihash = cid::multihash::Multihash::from_bytes(&peer.to_bytes()).ok()?;
    Cid::new_v1(LIBP2P_KEY, multihash).to_string_of_base(Base::Base36Lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER: &str = "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";

    #[test]
    fn every_way_to_write_a_name_is_the_same_key() {
        let peer: PeerId = PEER.parse().unwrap();
        let key = ipns::key(&peer);
        let base36 = show(&key);
        assert!(base36.starts_with("/ipns/k51qzi5uqu5"), "{base36}");
        for text in [&base36, &base36[6..], PEER, &format!("/ipns/{PEER}"), &format!("/ipns/{PEER}/")] {
            assert_eq!(parse(text).unwrap(), key, "{text}");
        }
        let rsa = "/ipns/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN";
        assert_eq!(parse(&show(&parse(rsa).unwrap())).unwrap(), parse(rsa).unwrap());
        assert_eq!(parse(&format!("/pk/{PEER}")).unwrap(), pk::key(&peer));
        assert_eq!(show(&pk::key(&peer)), format!("/pk/{PEER}"));
        assert_eq!(show(b"/x/"), "2f782f");
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        for (text, reason) in [
            ("/ipns/docs.ipfs.tech", "DNS"),
            ("/ipfs/bafkqaaa", "another kind"),
            ("/ipns/bafkqaaa", "CID of content"),
            ("/ipns/", "not a peer id"),
            ("hello", "not a peer id"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_key_panics(text in ".{0,80}", name in "/(ipns|pk)/[zbkfQ1][a-zA-Z0-9]{0,90}", key in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = (parse(&text), parse(&name), show(&key));
            let _ = show(&[b"/ipns/", &key[..]].concat());
        }
    }
}
