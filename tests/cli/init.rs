//! `dhtstore init` and `dhtstore id`, as processes.

use crate::home::{Home, mode};
use libp2p::identity::Keypair;
use std::fs;

const RSA: &str = include_str!("../fixtures/throwaway-rsa.base64");
const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
const SWARM_KEY: &str =
    "/key/swarm/psk/1.0.0/\n/base16/\n00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

fn base64(bytes: &[u8]) -> String {
    multibase::Base::Base64Pad.encode(bytes)
}

fn rsa_peer() -> String {
    let bytes = multibase::Base::Base64Pad.decode(RSA.trim()).unwrap();
    Keypair::from_protobuf_encoding(&bytes).unwrap().public().to_peer_id().to_string()
}

/// Makes a Kubo repository with the fields that Kubo writes. Returns its path.
fn kubo(home: &Home, private_key: &str, peer: &str, bootstrap: &str, addresses: &str) -> String {
    let config = format!(
        "{{\"API\": {{\"HTTPHeaders\": {{}}}}, \"Addresses\": {{\"API\": \"/ip4/127.0.0.1/tcp/5001\", {addresses}}},
          \"Bootstrap\": {bootstrap}, \"Identity\": {{\"PeerID\": \"{peer}\", \"PrivKey\": \"{private_key}\"}}, \
              \"Version\": {{}}}}"
    );
    home.write("kubo/config", config);
    home.path("kubo").to_str().unwrap().to_owned()
}

fn peer_id(home: &Home) -> String {
    let run = home.run(&["id", "--format", "ids"]);
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout.trim().to_owned()
}

#[test]
fn init_creates_a_private_directory_with_a_private_key() {
    let home = Home::new();
    let run = home.run(&["init"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{run:?}");
    assert_eq!((mode(&home.data()), mode(&home.path("data/identity.key"))), (0o700, 0o600));
    let peer = peer_id(&home);
    assert!(peer.starts_with("12D3KooW") && run.stderr.contains(&peer), "{run:?}");
}

#[test]
fn a_second_init_is_exit_73_and_changes_nothing() {
    let home = Home::new();
    assert_eq!(home.run(&["init"]).code, 0);
    let before = fs::read(home.path("data/identity.key")).unwrap();
    let key = home.write("rsa", RSA);
    for args in [&["init"][..], &["init", "--profile", "amino"], &["init", "--identity", key.to_str().unwrap()]] {
        let run = home.run(args);
        assert!(run.code == 73 && run.stderr.contains("not overwritten"), "{run:?}");
    }
    assert_eq!(fs::read(home.path("data/identity.key")).unwrap(), before);
    assert_eq!(fs::read_dir(home.data()).unwrap().count(), 1, "a refused init writes nothing at all");
}

#[test]
fn init_where_nothing_can_be_created_is_exit_73() {
    let home = Home::new();
    home.write("file", "");
    let run = home.run_bare(&[], &["--data-dir", home.path("file/below").to_str().unwrap(), "init"]);
    assert!(run.code == 73 && run.stderr.contains("file/below"), "{run:?}");
}

#[test]
fn private_prints_the_commands_for_kubo_and_writes_the_key() {
    let home = Home::new();
    let run = home.run(&["--set", "announce=/ip4/192.0.2.7/tcp/4001", "init", "--private"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(mode(&home.path("data/swarm.key")), 0o600);
    let config = fs::read_to_string(home.path("data/dhtstore.toml")).unwrap();
    assert!(config.lines().any(|line| line == "swarm_key = \"swarm.key\""), "{config}");
    assert_eq!(home.run(&["config", "check"]).code, 0);
    let key = fs::read_to_string(home.path("data/swarm.key")).unwrap();
    assert!(run.stdout.contains(&format!("<<'KEY'\n{key}KEY\n")), "{run:?}");
    for line in [
        "ipfs config profile apply autoconf-off",
        "ipfs config --bool AutoConf.Enabled false",
        "ipfs bootstrap rm --all",
        "ipfs config Routing.Type dht",
        "ipfs config Provide.DHT.Interval 10h",
    ] {
        assert!(run.stdout.lines().any(|l| l == line), "{line}: {run:?}");
    }
    let add = format!("ipfs bootstrap add /ip4/192.0.2.7/tcp/4001/p2p/{}", peer_id(&home));
    assert!(run.stdout.lines().any(|l| l == add), "{run:?}");
    assert!(!run.stdout.contains("quic"), "a private swarm is TCP only: {run:?}");
}

/// A shell runs the printed commands, with an `ipfs` that records its arguments.
#[test]
fn the_printed_commands_run_in_a_shell() {
    let home = Home::new();
    let script = home.run(&["--set", "announce=/ip4/192.0.2.7/tcp/4001", "init", "--private"]).stdout;
    let ipfs = home.write("bin/ipfs", "#!/bin/sh\necho \"$@\" >> \"$HOME/asked\"\n");
    fs::set_permissions(&ipfs, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(home.path(".ipfs")).unwrap();
    let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .env_clear()
        .envs([("HOME", home.path("").to_str().unwrap()), ("PATH", &path)])
        .status()
        .unwrap();
    assert!(status.success());
    let copied = home.path(".ipfs/swarm.key");
    assert_eq!(fs::read(&copied).unwrap(), fs::read(home.path("data/swarm.key")).unwrap());
    assert_eq!(mode(&copied), 0o600);
    let asked = fs::read_to_string(home.path("asked")).unwrap();
    assert!(asked.contains("bootstrap add /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW"), "{asked}");
    assert!(asked.contains("config Provide.DHT.Interval 10h"), "{asked}");
}

#[test]
fn private_keeps_an_identity_that_is_there_but_no_second_key() {
    let home = Home::new();
    home.run(&["init"]);
    let peer = peer_id(&home);
    assert_eq!(home.run(&["init", "--private"]).code, 0);
    assert_eq!(peer_id(&home), peer);
    let key = fs::read(home.path("data/swarm.key")).unwrap();
    let run = home.run(&["init", "--private"]);
    assert!(run.code == 73 && run.stderr.contains("swarm.key"), "{run:?}");
    assert_eq!(fs::read(home.path("data/swarm.key")).unwrap(), key);
}

#[test]
fn a_profile_is_kept_in_the_data_directory() {
    let home = Home::new();
    assert_eq!(home.run(&["init", "--profile", "amino"]).code, 0);
    let shown = home.run(&["config", "show"]).stdout;
    assert!(shown.contains("profile = \"amino\"") && shown.contains("ttl = \"48h\""), "{shown}");
}

#[test]
fn options_that_contradict_each_other_are_exit_64() {
    let home = Home::new();
    let file = home.write("c.toml", "");
    for args in [
        &["init", "--private", "--profile", "amino"][..],
        &["init", "--private", "--from-kubo", "/x"],
        &["init", "--identity", "/x", "--from-kubo", "/x"],
        &["--config", file.to_str().unwrap(), "init", "--profile", "amino"],
    ] {
        assert_eq!(home.run(args).code, 64, "{args:?}");
    }
    assert!(!home.data().exists());
}

#[test]
fn every_form_of_private_key_is_imported() {
    let ed25519 = Keypair::generate_ed25519();
    let raw = ed25519.to_protobuf_encoding().unwrap();
    let peer = ed25519.public().to_peer_id().to_string();
    for (content, expected) in [
        (raw.clone(), peer.clone()),
        (base64(&raw).into_bytes(), peer.clone()),
        (format!("{{\"PrivKey\": \"{}\"}}", base64(&raw)).into_bytes(), peer.clone()),
        (RSA.as_bytes().to_vec(), rsa_peer()),
    ] {
        let home = Home::new();
        let file = home.write("key", content);
        let run = home.run(&["init", "--identity", file.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(peer_id(&home), expected);
    }
}

#[test]
fn a_bad_key_file_is_exit_65_and_nothing_is_created() {
    let home = Home::new();
    for content in ["", "nonsense", "{\"PrivKey\": 3}"] {
        let file = home.write("key", content);
        let run = home.run(&["init", "--identity", file.to_str().unwrap()]);
        assert!(run.code == 65 && run.stderr.contains("key"), "{run:?}");
    }
    assert_eq!(home.run(&["init", "--identity", "/nonexistent"]).code, 65);
    assert!(!home.data().exists());
}

#[test]
fn a_kubo_node_with_an_rsa_key_is_taken_over() {
    let home = Home::new();
    let bootstrap = format!("[\"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}\", \"/ip4/192.0.2.2/tcp/4001\"]");
    let addresses = "\"Announce\": [\"/ip4/203.0.113.7/tcp/4001\"],
        \"AppendAnnounce\": [\"/dns4/node.example/tcp/4001\"], \"NoAnnounce\": [\"/ip4/10.0.0.0/ipcidr/8\"],
        \"Swarm\": [\"/ip4/0.0.0.0/tcp/4101\", \"/ip4/0.0.0.0/udp/4101/quic-v1\",
            \"/ip4/0.0.0.0/udp/4101/quic-v1/webtransport\"]";
    let repository = kubo(&home, RSA.trim(), &rsa_peer(), &bootstrap, addresses);
    home.write("kubo/swarm.key", SWARM_KEY);
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(peer_id(&home), rsa_peer());
    assert_eq!(fs::read_to_string(home.path("data/swarm.key")).unwrap(), SWARM_KEY);
    assert!(run.stderr.contains("two nodes with one peer id"), "{run:?}");
    assert!(run.stderr.contains("/ip4/192.0.2.2/tcp/4001 is left out"), "{run:?}");
    assert!(run.stderr.contains("quic-v1/webtransport is left out"), "{run:?}");
    assert!(run.stderr.contains("/ip4/0.0.0.0/udp/4101/quic-v1 is left out"), "{run:?}");
    assert!(run.stderr.contains("left out: Addresses.API;"), "{run:?}");
    let shown = home.run(&["config", "show"]).stdout;
    for line in [
        format!("bootstrap = [\"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}\"]"),
        "announce = [\"/ip4/203.0.113.7/tcp/4001\"]".into(),
        "append_announce = [\"/dns4/node.example/tcp/4001\"]".into(),
        "no_announce = [\"/ip4/10.0.0.0/ipcidr/8\"]".into(),
        "listen = [\"/ip4/0.0.0.0/tcp/4101\"]".into(),
        "profile = \"private\"".into(),
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}: {shown}");
    }
    assert!(shown.contains("data/swarm.key"), "{shown}");
    assert_eq!(home.run(&["config", "check"]).code, 0);
}

#[test]
fn a_public_kubo_node_becomes_an_amino_server_and_auto_its_bootstrappers() {
    let home = Home::new();
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id().to_string();
    let private = base64(&key.to_protobuf_encoding().unwrap());
    let addresses = "\"Announce\": null, \"AppendAnnounce\": [], \"NoAnnounce\": []";
    let repository = kubo(&home, &private, &peer, "[\"auto\"]", addresses);
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert!(run.code == 0 && run.stderr.contains("auto"), "{run:?}");
    assert_eq!(peer_id(&home), peer);
    let shown = home.run(&["config", "show"]).stdout;
    assert!(shown.contains("profile = \"amino\"") && shown.contains("/dnsaddr/bootstrap.libp2p.io/"), "{shown}");

    let other = Home::new();
    let repository = kubo(&other, &private, &peer, "[\"auto\"]", addresses);
    let run = other.run(&["init", "--profile", "private", "--from-kubo", &repository]);
    assert!(run.code == 0 && run.stderr.contains("\"auto\" is left out"), "{run:?}");
    assert!(other.run(&["config", "show"]).stdout.contains("bootstrap = []"));
}

#[test]
fn a_bad_kubo_repository_is_exit_65_and_nothing_is_created() {
    let good = RSA.trim();
    for (private, peer) in [("", ""), ("AAAA", ""), (good, PEER)] {
        let home = Home::new();
        let repository = kubo(&home, private, peer, "null", "\"Announce\": []");
        let run = home.run(&["init", "--from-kubo", &repository]);
        assert!(run.code == 65 && run.stderr.contains("Identity."), "{run:?}");
        assert!(!home.data().exists());
    }
    let home = Home::new();
    for config in ["not json", "{}", "[]"] {
        home.write("kubo/config", config);
        assert_eq!(home.run(&["init", "--from-kubo", home.path("kubo").to_str().unwrap()]).code, 65);
    }
    let run = home.run(&["init", "--from-kubo", "/nonexistent"]);
    assert!(run.code == 65 && run.stderr.contains("IPFS_PATH"), "{run:?}");
    let repository = kubo(&home, good, &rsa_peer(), "[]", "\"Announce\": []");
    home.write("kubo/swarm.key", "/key/swarm/psk/1.0.0/\n/base16/\nzz\n");
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert!(run.code == 65 && run.stderr.contains("swarm.key: line 3"), "{run:?}");
    assert!(!home.data().exists());
}

#[test]
fn a_kubo_node_that_runs_is_refused_with_exit_75() {
    let home = Home::new();
    let repository = kubo(&home, RSA.trim(), &rsa_peer(), "[]", "\"Announce\": []");
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    home.write("kubo/api", format!("/ip4/127.0.0.1/tcp/{}\n", api.local_addr().unwrap().port()));
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert!(run.code == 75 && run.stderr.contains("ipfs shutdown"), "{run:?}");
    assert!(!home.data().exists());

    // Only a lock file that a process holds counts. A crash leaves a file that no process holds.
    drop(api);
    let lock = fs::File::create(home.path("kubo/repo.lock")).unwrap();
    lock.lock().unwrap();
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert!(run.code == 75 && run.stderr.contains("repo.lock"), "{run:?}");
    drop(lock);
    assert_eq!(home.run(&["init", "--from-kubo", &repository]).code, 0);
}

#[test]
fn all_three_bodies_of_a_swarm_key_are_accepted() {
    let key: Vec<u8> = (0..32).collect();
    let hex = multibase::Base::Base16Lower.encode(&key);
    let encoded = base64(&key);
    for (encoding, body) in [("/base16/", hex.as_bytes()), ("/base64/", encoded.as_bytes()), ("/bin/", &key)] {
        let home = Home::new();
        home.write("data/swarm.key", [format!("/key/swarm/psk/1.0.0/\n{encoding}\n").as_bytes(), body].concat());
        let run = home.run(&["config", "check"]);
        assert_eq!(run.code, 0, "{encoding}: {run:?}");
    }
    let home = Home::new();
    home.write("data/swarm.key", "/key/swarm/psk/1.0.0/\n/base99/\n");
    let run = home.run(&["config", "check"]);
    assert!(run.code == 65 && run.stderr.contains("line 2"), "{run:?}");
}

#[test]
fn id_without_an_identity_is_exit_66_and_with_a_damaged_one_65() {
    let home = Home::new();
    let run = home.run(&["id"]);
    assert!(run.code == 66 && run.stderr.contains(home.data().to_str().unwrap()), "{run:?}");
    home.write("data/identity.key", "damaged");
    let run = home.run(&["id"]);
    assert!(run.code == 65 && run.stderr.contains("identity.key") && run.stderr.contains("backup"), "{run:?}");
    assert_eq!(fs::read(home.path("data/identity.key")).unwrap(), b"damaged");
}

#[test]
fn id_is_ndjson_when_piped_and_bootstrap_prints_multiaddrs() {
    let home = Home::new();
    home.run(&["init"]);
    let peer = peer_id(&home);
    let announce = ["--set", "announce=/ip4/192.0.2.7/tcp/4001,/ip4/192.0.2.8/udp/4001/quic-v1"];
    let run = home.run(&[&announce[..], &["id"]].concat());
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((json["peer"].as_str(), json["running"].as_bool()), (Some(peer.as_str()), Some(false)));
    let run = home.run(&[&announce[..], &["id", "--bootstrap"]].concat());
    let expected = format!("/ip4/192.0.2.7/tcp/4001/p2p/{peer}\n/ip4/192.0.2.8/udp/4001/quic-v1/p2p/{peer}\n");
    assert_eq!(run.stdout, expected);
}

/// Answers one request on the control socket as a running server does.
#[test]
fn id_asks_the_running_server() {
    use std::io::{BufRead, BufReader, Write};
    let home = Home::new();
    home.run(&["init"]);
    let socket = std::os::unix::net::UnixListener::bind(home.path("data/control.sock")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let mut request = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
        let answer = format!("{{\"done\":{{\"peer\":\"{PEER}\",\"addresses\":[\"/ip4/192.0.2.9/tcp/4444\"]}}}}\n");
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    let run = home.run(&["id", "--bootstrap"]);
    assert_eq!(run.stdout, format!("/ip4/192.0.2.9/tcp/4444/p2p/{PEER}\n"));
    assert!(run.stderr.contains("running server"), "{run:?}");
    assert_eq!(server.join().unwrap().trim(), "{\"cmd\":\"stat\"}");
    // The socket that a killed server leaves behind is no server.
    let run = home.run(&["id"]);
    assert!(run.code == 0 && run.stdout.contains("\"running\":false"), "{run:?}");
}

#[test]
fn the_systemd_credential_is_the_identity_if_there_is_one() {
    let home = Home::new();
    home.run(&["init"]);
    let raw = Keypair::generate_secp256k1();
    home.write("credentials/identity.key", raw.to_protobuf_encoding().unwrap());
    let credentials = home.path("credentials");
    let run = home.run_with(&[("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())], &["id", "--format", "ids"]);
    assert_eq!(run.stdout.trim(), raw.public().to_peer_id().to_string());
}

#[test]
fn a_closed_stdout_is_exit_0() {
    let home = Home::new();
    let mut child = home.command(&[], &["config", "default"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_public_kubo_node_is_one_whichever_of_the_public_bootstrappers_it_lists() {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id().to_string();
    let private = base64(&key.to_protobuf_encoding().unwrap());
    let am6 = Keypair::generate_ed25519().public().to_peer_id();
    for listed in [
        "/dnsaddr/bootstrap.libp2p.io/ipfs/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
        "/ip4/104.131.131.82/tcp/4001/ipfs/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
        "/ip4/104.131.131.82/udp/4001/quic-v1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
        &format!("/dnsaddr/am6.bootstrap.libp2p.io/p2p/{am6}"),
    ] {
        let home = Home::new();
        let draft = format!("/ip4/104.131.131.82/udp/4001/quic/p2p/{am6}");
        let repository = kubo(&home, &private, &peer, &format!("[\"{listed}\", \"{draft}\"]"), "\"Announce\": []");
        let run = home.run(&["init", "--from-kubo", &repository]);
        assert!(run.code == 0 && run.stderr.contains(&format!("{draft} is left out")), "{listed}: {run:?}");
        let shown = home.run(&["config", "show"]).stdout;
        assert!(shown.contains("profile = \"amino\"") && shown.contains(&listed.replace("/ipfs/", "/p2p/")), "{shown}");
    }
}

#[test]
fn a_kubo_repository_whose_swarm_key_cannot_be_read_is_no_open_network() {
    let home = Home::new();
    let key = Keypair::generate_ed25519();
    let private = base64(&key.to_protobuf_encoding().unwrap());
    let peer = key.public().to_peer_id().to_string();
    let repository = kubo(&home, &private, &peer, "[]", "\"Announce\": []");
    std::os::unix::fs::symlink("/nonexistent/swarm.key", home.path("kubo/swarm.key")).unwrap();
    let run = home.run(&["init", "--from-kubo", &repository]);
    assert!(run.code == 65 && run.stderr.contains("cannot read the swarm key"), "{run:?}");
    assert!(!home.data().exists());
}
