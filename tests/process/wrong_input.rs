//! Tests that each wrong input has its exit code and an error with the next step.

use crate::harness::{TestNode, cid, fails};

#[test]
fn usage_is_64() {
    let node = TestNode::new();
    for args in [&["nonsense"][..], &["run", "--nonsense"], &["findprovs"], &["dump", "nonsense"], &["--format"], &[]] {
        let output = node.cli(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", crate::harness::text(&output));
    }
    assert_eq!(node.cli(&["--help"]).status.code(), Some(0));
    assert_eq!(node.cli(&["--version"]).status.code(), Some(0));
}

#[test]
fn no_server_is_69_and_says_how_to_start_one() {
    let node = TestNode::new();
    node.ok(&["init"]);
    for args in [
        &["peers"][..],
        &["findprovs", &cid("x")],
        &["provide", &cid("x")],
        &["connect", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"],
    ] {
        fails(&node.cli(args), 69, &["dhtstore run"]);
    }
}

#[test]
fn a_link_to_a_disk_that_is_not_mounted_is_no_empty_store() {
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("kept")]);
    assert_eq!(node.stop(), Some(0));
    for part in ["node", "records"] {
        let (place, disk) = (node.dir().join(part), node.dir().with_extension("disk"));
        std::fs::rename(&place, &disk).unwrap();
        std::os::unix::fs::symlink(&disk, &place).unwrap();
        assert_eq!(node.rows(&["dump", "provided", "--format", "ndjson"]).len(), 1, "a link is as good as a directory");
        let away = node.dir().with_extension("away");
        std::fs::rename(&disk, &away).unwrap();
        for command in [&["run"][..], &["dump"], &["stat"]] {
            let output = node.cli(command);
            assert!(!output.status.success(), "{part}: {command:?}: {}", crate::harness::text(&output));
        }
        assert!(std::fs::symlink_metadata(&place).unwrap().is_symlink(), "the link stays");
        std::fs::remove_file(&place).unwrap();
        std::fs::rename(&away, &place).unwrap();
    }
    node.start();
    assert_eq!(node.ok(&["provided", "--format", "ids"]).lines().count(), 1);
}

#[test]
fn provide_says_which_line_is_bad_and_adds_nothing() {
    let node = TestNode::started();
    let input = format!("{}\nnot-a-cid\n\n{}\n{}x\n", cid("a"), cid("b"), cid("c"));
    let output = node.cli_with_input(&["provide", "--file", "-"], &input);
    fails(&output, 65, &["line 2", "not-a-cid", "line 5"]);
    assert_eq!(node.ok(&["provided", "--format", "ids"]), "");
    fails(&node.cli(&["provide", "bafynonsense"]), 65, &["bafynonsense"]);
    let next_step = ["/nonexistent", "give the path of a file, or `-` for stdin"];
    for wrong in [&["provide", "--file", "/nonexistent"][..], &["load", "/nonexistent"]] {
        fails(&node.cli(wrong), 65, &next_step);
    }
    fails(&TestNode::new().cli(&["restore", "/nonexistent"]), 65, &next_step);
    for wrong in [&["findprovs", "not-a-cid"][..], &["findpeer", "not-a-peer"], &["diagnose", "?"], &["closest", "?"]] {
        fails(&node.cli(wrong), 65, &[wrong[1]]);
    }
    fails(&node.cli(&["connect", "not-an-address"]), 65, &["not-an-address"]);
    for nowhere in ["/ip4/127.0.0.1", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/4001", "/unix/tmp"] {
        fails(&node.cli(&["connect", nowhere]), 65, &[nowhere, "give host and port"]);
    }
}

#[test]
fn provide_takes_both_versions_of_a_cid_in_any_multibase() {
    let node = TestNode::started();
    // The same multihash four times: CIDv0, CIDv1 in base32, base58btc and base64url.
    let v0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    let id: cid::Cid = v0.parse().unwrap();
    let v1 = cid::Cid::new_v1(0x70, *id.hash());
    let mut input = format!("{v0}\r\n{v1}\n");
    for base in [multibase::Base::Base58Btc, multibase::Base::Base64Url] {
        input += &(v1.to_string_of_base(base).unwrap() + "\n");
    }
    let output = node.cli_with_input(&["provide", "--file", "-"], &input);
    assert!(output.status.success(), "{}", crate::harness::text(&output));
    assert_eq!(node.ok(&["provided", "--format", "ids"]).lines().count(), 1);
}

#[test]
fn a_bad_configuration_is_78_and_names_the_key() {
    let node = TestNode::new();
    let file = node.dir().with_extension("toml");
    for (text, words) in [
        ("nonsense = 1", &["nonsense"][..]),
        ("[records]\nttl = \"12 parsecs\"", &["ttl"]),
        ("[records]\nttl = \"3h\"", &["reprovide", "ttl"]),
        ("listen = [\"/ip4/nowhere\"]", &["listen"]),
        ("this is not toml", &[file.to_str().unwrap()]),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [&["run"][..], &["config", "check"]] {
            let args = [&["--config", file.to_str().unwrap()], command].concat();
            fails(&node.cli(&args), 78, words);
        }
    }
    fails(&node.cli(&["--config", "/nonexistent.toml", "config", "check"]), 78, &["/nonexistent.toml"]);
    assert!(!node.dir().exists(), "nothing was created");
}
