//! Checks the seeds: our encoders must still write the committed bytes, and every committed input must pass its target.

use super::*;
use crate::kad::{
    message::{self, EncodedPeer, MessageType},
    seeded::Seeded,
    values::{ipns, pk},
};
use libp2p::identity::Keypair;
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

/// `fuzz/seeds`
fn seeds_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

const CID: &str = "bafybeie5gq4jxvzmsym6hjlwxej4rwdoxt7wadqvmmwbqi7r27fclha2va";

/// Returns target, name and bytes of each seed that is generated. The other seeds are written by hand, or are inputs
/// that once failed.
fn made() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let multihash = [&[0x12, 0x20], &[9; 32][..]].concat();
    let sender = libp2p::PeerId::from_bytes(&[&[0x12, 0x20], &[wire::SENDER; 32][..]].concat()).unwrap();
    let addr = |text: &str| text.parse::<libp2p::Multiaddr>().unwrap();
    let addrs = [addr("/ip4/1.2.3.4/tcp/4001"), addr("/dns4/a.example/udp/4001/quic-v1"), addr("/ip6/::1/tcp/1")];
    let entry = EncodedPeer::new(&sender, &addrs);
    // An encoded `Record` with key, value and time of receipt; `put_value` puts it into a message.
    let record = [&[0x0a, 6][..], b"/pk/ab", &[0x12, 2, 1, 2, 0x2a, 1, b'x']].concat();
    let frames = [
        ("find-node", message::request(MessageType::FindNode, &sender.to_bytes())),
        ("get-providers", message::request(MessageType::GetProviders, &multihash)),
        ("get-value", message::request(MessageType::GetValue, b"/pk/ab")),
        ("ping", message::request(MessageType::Ping, b"")),
        ("add-provider", message::add_provider(&multihash, &entry)),
        ("put-value", message::put_value(b"/pk/ab", &record)),
        (
            "answer",
            message::answer(
                MessageType::GetProviders,
                &multihash,
                Some(&record),
                std::slice::from_ref(&entry),
                [&entry],
            ),
        ),
    ];
    let mut seeds = crate::store::fuzzing::seeds();
    seeds.extend(crate::backup::fuzzing::seeds());
    for (name, frame) in &frames {
        // The length prefix takes one byte, or two for a message of 128 bytes or more.
        let prefix = if frame.len() > 128 { 2 } else { 1 };
        seeds.push(("message", *name, frame[prefix..].to_vec()));
        seeds.push(("request", *name, frame[prefix..].to_vec()));
    }
    let all: Vec<u8> = frames.iter().flat_map(|(_, frame)| frame.to_vec()).collect();
    seeds.push(("frame", "whole", [&[255], &all[..]].concat()));
    seeds.push(("frame", "byte-by-byte", [&[0], &all[..]].concat()));

    let key = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let protobuf = key.to_protobuf_encoding().unwrap();
    let base64 = multibase::Base::Base64.encode(&protobuf);
    let id = key.public().to_peer_id();
    let swarm_key =
        crate::transport::swarm_key::SwarmKey::parse(b"/key/swarm/psk/1.0.0/\n/bin/\n01234567890123456789012345678901")
            .unwrap();
    // Joins a key, seconds and two values in the form that `wire::values` parses.
    let values = |key: &[u8], a: &[u8], b: &[u8]| {
        let seconds = 1_700_000_000u32.to_be_bytes();
        [&[key.len() as u8], key, &seconds, &(a.len() as u16).to_be_bytes(), a, b].concat()
    };
    let rsa =
        crate::transport::identity::Identity::from_base64(include_str!("../../tests/fixtures/throwaway-rsa.base64"));
    let rsa = rsa.unwrap().keypair;
    for (name, signer) in [("ipns-ed25519", &key), ("ipns-rsa", &rsa)] {
        let record = |sequence: u64| {
            let validity = Duration::from_secs(1_800_000_000);
            let entry = ipns::Entry { value: b"/ipfs/x", sequence, validity, ttl: Duration::from_secs(300) };
            ipns::create(signer, &entry).unwrap()
        };
        seeds.push(("values", name, values(&ipns::key(&signer.public().to_peer_id()), &record(1), &record(2))));
    }
    let public = rsa.public().encode_protobuf();
    seeds.push(("values", "pk-rsa", values(&pk::key(&rsa.public().to_peer_id()), &public, &public)));
    seeds.push(("keys", "swarm", swarm_key.to_file().into_bytes()));
    seeds.push(("keys", "protobuf", protobuf));
    seeds.push(("keys", "base64", base64.clone().into_bytes()));
    seeds.push(("keys", "json", format!(r#"{{"PrivKey":"{base64}"}}"#).into_bytes()));
    let lists = r#""Addresses":{"Swarm":["/ip4/0.0.0.0/tcp/4001"],"Announce":["/dns4/a.example/tcp/1"],"AppendAnnounce":null,"NoAnnounce":["/ip4/10.0.0.0/ipcidr/8"]},"Bootstrap":["auto","/ip4/1.2.3.4/tcp/1/p2p/"#;
    let identity = format!(r#"{{"Identity":{{"PeerID":"{id}","PrivKey":"{base64}"}}"#);
    seeds.push(("kubo", "full", format!("{identity},{lists}{id}\"]}}").into_bytes()));
    seeds.push(("kubo", "small", format!("{identity}}}").into_bytes()));
    let requests = [
        ("provide", crate::control::protocol::Request::provide(vec![CID.into()])),
        (
            "find-providers",
            crate::control::protocol::Request::FindProviders { cid: CID.into(), limit: 20, local: true },
        ),
        ("stat", crate::control::protocol::Request::Stat),
    ];
    seeds.extend(requests.into_iter().map(|(name, request)| ("control", name, serde_json::to_vec(&request).unwrap())));
    seeds.extend(addrs.iter().zip(["tcp", "dns", "ip6"]).map(|(addr, name)| ("addresses", name, addr.to_vec())));
    seeds
}

/// `WRITE_SEEDS=1 cargo test seeds_` writes the seeds. If a seed in `rows` or `exports` differs, the format on disk has
/// changed, which needs a new version and a migration.
#[test]
fn seeds_are_what_our_encoders_write() {
    for (target, name, bytes) in made() {
        let path = seeds_dir().join(target).join(name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|committed| committed == bytes), "{} is not as written", path.display());
    }
}

#[test]
fn seeds_and_inputs_that_once_failed_pass_their_targets() {
    for (name, target) in TARGETS {
        let inputs: BTreeSet<PathBuf> =
            fs::read_dir(seeds_dir().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() >= 2, "{name} has hardly any seed");
        for path in inputs {
            println!("{}", path.display());
            let data = fs::read(&path).unwrap();
            target(&data);
            // The first half alone must pass too.
            target(&data[..data.len() / 2]);
        }
    }
}

/// Finds without cargo-fuzz what cargo-fuzz would find at once: changes, cuts out and doubles bytes of each seed, and
/// takes bytes from another seed. `DAMAGED_PER_SEED=10000` tries 10,000 damaged inputs per seed instead of 30.
#[test]
fn damaged_seeds_pass_their_targets() {
    let per_seed = std::env::var("DAMAGED_PER_SEED").map_or(30, |text| text.parse::<u64>().unwrap());
    for (name, target) in TARGETS {
        let paths = fs::read_dir(seeds_dir().join(name)).unwrap().map(|entry| entry.unwrap().path());
        let seeds: Vec<Vec<u8>> = paths.collect::<BTreeSet<_>>().iter().map(|path| fs::read(path).unwrap()).collect();
        for (n, seed) in seeds.iter().enumerate() {
            for round in 0..per_seed {
                let mut random = Seeded::new((round << 32) | n as u64);
                let data = damaged(seed, &seeds, &mut random);
                let run = std::panic::catch_unwind(|| target(&data));
                assert!(run.is_ok(), "{name}, seed {n}, round {round}: {data:02x?}");
            }
        }
    }
}

fn damaged(seed: &[u8], seeds: &[Vec<u8>], random: &mut Seeded) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let end = (at + random.below(9)).min(data.len());
        match random.below(5) {
            0 if at < data.len() => data[at] = random.next() as u8,
            1 => drop(data.drain(at..end)),
            2 => drop(
                data.splice(at..at, seed[at.min(seed.len())..end.min(seed.len()).max(at.min(seed.len()))].to_vec()),
            ),
            3 => drop(data.splice(at..end, [0, 0x7f, 0x80, 0xff].map(|byte| byte ^ (random.below(2) as u8)))),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data
}

#[test]
fn every_target_is_built_by_cargo_fuzz() {
    let manifest = fs::read_to_string(seeds_dir().join("../Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let source = fs::read_to_string(seeds_dir().join(format!("../fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}
