//! Targets for input that people write: lists of CIDs, addresses, key files, configurations, lines for the control
//! socket.

use super::file;
use crate::{
    cli::{
        Context, Global,
        cid_list::{CidArgs, is_utf16},
        init,
    },
    config::file::Sources,
    control::protocol,
    kad::{
        cids as cid_text,
        cids::place,
        message::EncodedPeer,
        scope::{self, AddressScope},
        useful::most_useful,
    },
    transport::{addresses::can_listen, identity::Identity, swarm_key::SwarmKey},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Reads the input as a list of CIDs, and each of its lines as a CID and as a key.
pub(super) fn cids(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        if let Ok(cid) = cid_text::parse(line) {
            let text = cid.to_string();
            assert_eq!(cid_text::parse(&text).as_ref(), Ok(&cid), "{text}");
        }
        if let Ok(key) = cid_text::parse_key(line) {
            place(&key);
        }
    }
    let file = file(data);
    let context = Context::new(Global { quiet: 1, ..Global::default() });
    let args = CidArgs { cids: Vec::new(), file: Some(file.path().into()), skip_bad: true };
    let Ok(mut list) = args.read(&context) else {
        assert!(is_utf16(data), "with --skip-bad every other list is taken");
        return;
    };
    let promised = list.len();
    let Ok(chunks) = list.chunks() else { panic!("the list cannot be read again") };
    let texts: Vec<String> = chunks.flat_map(|chunk| chunk.unwrap_or_default()).collect();
    assert_eq!(texts.len() as u64, promised);
    assert!(texts.iter().all(|text| cid_text::parse(text).is_ok()), "{texts:?}");
}

/// Reads the input as an address, in binary and in text form.
pub(super) fn addresses(data: &[u8]) {
    let text = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Multiaddr>().ok());
    for addr in Multiaddr::try_from(data.to_vec()).ok().into_iter().chain(text) {
        for scope in [AddressScope::Any, AddressScope::Public, AddressScope::Private] {
            let allowed = scope.allows(&addr);
            assert!(!allowed || scope::reach(&addr).is_some() && scope.hands_out(&addr), "{addr}");
        }
        scope::IpGroups::default().of(&addr);
        can_listen(&addr);
        let named = addr.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        let peer =
            named.unwrap_or_else(|| PeerId::from_multihash(Default::default()).unwrap_or_else(|_| PeerId::random()));
        if let Some(stripped) = scope::strip_peer(addr.clone(), &peer) {
            let text = stripped.to_string();
            // Counts protocols, not occurrences in the text: a host may be called "p2p".
            let relays = stripped.iter().filter(|part| matches!(part, Protocol::P2p(_))).count();
            assert!(!text.is_empty() && relays == usize::from(scope::relay_address(&stripped).is_some()), "{addr}");
            assert!(text.chars().all(|c| c.is_ascii_graphic()), "{text:?} would speak to terminals");
            EncodedPeer::new(&peer, &most_useful(vec![stripped]));
        }
    }
}

/// Reads the input as a swarm key, and as an identity in protobuf, base64 or JSON.
pub(super) fn keys(data: &[u8]) {
    if let Ok(key) = SwarmKey::parse(data) {
        assert_eq!(SwarmKey::parse(key.to_file().as_bytes()), Ok(key));
    }
    let from_protobuf = Identity::from_protobuf(data.to_vec()).is_ok();
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Identity::from_base64(text);
    }
    // `import` must accept everything that `from_protobuf` accepts.
    assert!(!from_protobuf || Identity::import(file(data).path()).is_ok());
    if data.contains(&b'{') {
        let _ = Identity::import(file(data).path());
    }
}

/// Reads the input as `dhtstore.toml`. If it is accepted, the settings as printed must be accepted again.
pub(super) fn config(data: &[u8]) {
    let file = file(data);
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    let Ok(loaded) = sources.load_detailed() else { return };
    let Ok(shown) = toml::to_string(&loaded.config) else { panic!("cannot be shown: {:?}", loaded.config) };
    let again = super::file(shown.as_bytes());
    let sources = Sources { file: Some(again.path().into()), ..Sources::default() };
    if let Err(error) = sources.load_detailed() {
        panic!("{error}:\n{shown}");
    }
}

/// Reads the input as the `config` of a Kubo repository. If it is accepted, the result must be a valid configuration.
pub(super) fn kubo(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory, set TMPDIR: {error}"));
    if std::fs::write(dir.path().join("config"), data).is_err() {
        return;
    }
    let Ok(taken) = init::kubo::read(dir.path(), None) else { return };
    let file = file(taken.config.as_bytes());
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    if let Err(error) = sources.load_detailed() {
        panic!("{error}:\n{}", taken.config);
    }
}

/// Reads the input as a line on the control socket: as a client's request, and as a server's reply.
pub(super) fn control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<protocol::Request>(data) {
        let Ok(line) = serde_json::to_vec(&request) else { panic!("{request:?} cannot be sent") };
        assert!(serde_json::from_slice::<protocol::Request>(&line).is_ok());
    }
    let _ = serde_json::from_slice::<protocol::Reply>(data);
    let _ = serde_json::from_slice::<protocol::Stat>(data);
}
