//! Parses CIDs and other keys that people type.

use crate::{Cid, keyspace::Key, peer_id::parse_peer_id, rules};

/// Why text is not a CID or a key: one line, without the text itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadCid(pub String);

/// Longest text that is parsed. A CID with a multihash of 80 bytes takes some 700 characters in base2.
const MAX_TEXT: usize = 1024;

/// Parses a CID, v0 or v1 in any multibase, also as `/ipfs/<cid>` or `ipfs://<cid>`. Its multihash must fit into a
/// request (PRV-1).
pub fn parse(text: &str) -> Result<Cid, BadCid> {
    let text = ["/ipfs/", "ipfs://"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    if text.is_empty() {
        return Err(BadCid("empty".into()));
    }
    if text.len() > MAX_TEXT {
        return Err(BadCid(format!("{} bytes is too long for a CID", text.len())));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(BadCid(format!("{odd:?} cannot be part of a CID")));
    }
    if text.contains('/') {
        return Err(BadCid("this is a path; only the CID itself can be announced".into()));
    }
    let cid = Cid::try_from(text).map_err(|error| BadCid(explain(text, &error)))?;
    let multihash = cid.hash().to_bytes();
    if multihash.len() > rules::MAX_KEY {
        return Err(BadCid(format!("its multihash has {} bytes, servers accept {}", multihash.len(), rules::MAX_KEY)));
    }
    Ok(cid)
}

fn explain(text: &str, error: &cid::Error) -> String {
    if parse_peer_id(text).is_ok() {
        return "this is a peer id, not a CID".into();
    }
    if text.len() < 8 {
        return "too short for a CID".into();
    }
    format!("not a CID: {error}").to_lowercase()
}

/// Parses a key for FIND_NODE: a CID, a peer id, or a multihash in base58, in base16, or with a multibase prefix.
/// Returns the bytes that FIND_NODE carries.
pub fn parse_key(text: &str) -> Result<Vec<u8>, BadCid> {
    if text.len() <= MAX_TEXT {
        if let Ok(peer) = parse_peer_id(text) {
            return Ok(peer.to_bytes());
        }
        let base16 = multibase::Base::Base16Lower.decode(text.to_ascii_lowercase()).ok();
        let prefixed = || multibase::decode(text).ok().map(|(_, bytes)| bytes);
        let raw = |bytes: &Vec<u8>| rules::is_multihash(bytes) && bytes.len() <= rules::MAX_KEY;
        if let Some(bytes) = base16.filter(raw).or_else(|| prefixed().filter(raw)) {
            return Ok(bytes);
        }
    }
    parse(text)
        .map(|cid| cid.hash().to_bytes())
        .map_err(|error| BadCid(format!("{error}; a key is a CID, a multihash or a peer id")))
}

/// Returns the place in the keyspace of bytes that [`parse_key`] returned.
pub fn place(bytes: &[u8]) -> Key {
    rules::target_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::PeerId;
    use proptest::prelude::*;

    const V0: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    const V1: &str = "bafybeie5gq4jxvzmsym6hjlwxej4rwdoxt7wadqvmmwbqi7r27fclha2va";
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn every_version_and_base_is_read() {
        let v1 = parse(V1).unwrap();
        for base in [multibase::Base::Base16Upper, multibase::Base::Base36Lower, multibase::Base::Base64Url] {
            assert_eq!(parse(&v1.to_string_of_base(base).unwrap()).unwrap(), v1);
        }
        assert_eq!(parse(V0).unwrap().version(), cid::Version::V0);
        assert_eq!(parse(&format!("/ipfs/{V1}")).unwrap(), v1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("", "empty"),
            ("hello world", "' ' cannot be part"),
            ("baf", "too short"),
            (PEER, "peer id"),
            ("/ipfs/bafy/readme", "path"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(parse(&V1[..40]).is_err());
    }

    #[test]
    fn prv_1_multihashes_of_up_to_80_bytes_are_taken_and_written_as_they_came() {
        for digest in [64usize, 65, 78] {
            let multihash = [&[0x00, digest as u8][..], &vec![7; digest]].concat();
            let text = multibase::encode(multibase::Base::Base32Lower, [&[0x01, 0x55][..], &multihash].concat());
            let cid = parse(&text).unwrap();
            assert_eq!((cid.hash().to_bytes(), cid.to_string()), (multihash, text));
        }
        let long = [&[0x01, 0x55, 0x00, 79][..], &[7; 79]].concat();
        assert!(parse(&multibase::encode(multibase::Base::Base32Lower, long)).is_err());
    }

    #[test]
    fn a_key_is_a_cid_a_multihash_or_a_peer_id() {
        let multihash = parse(V1).unwrap().hash().to_bytes();
        let base16 = multibase::Base::Base16Lower.encode(&multihash);
        assert_eq!(parse_key(V1).unwrap(), multihash);
        assert_eq!(parse_key(&base16).unwrap(), multihash);
        assert_eq!(parse_key(&format!("f{base16}")).unwrap(), multihash);
        assert_eq!(parse_key(PEER).unwrap(), PEER.parse::<PeerId>().unwrap().to_bytes());
        assert!(parse_key("what").unwrap_err().to_string().contains("a key is a CID"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", more in "[zbmfkQ1][a-zA-Z0-9]{0,90}") {
            for text in [text, more] {
                let _ = parse(&text);
                let _ = parse_key(&text);
            }
        }
    }
}
