//! `dhtstore load`: what `dump` wrote, into a running and into a stopped node.

use crate::{
    dump::node_with_records,
    harness::{TestNode, cid, fails, text},
};

/// A stopped node's dump, and its hash.
async fn dumped(count: usize) -> (TestNode, String, String) {
    let mut node = node_with_records(count).await;
    assert_eq!(node.stop(), Some(0));
    let dump = node.ok(&["dump", "--format", "ndjson"]);
    let hash = hash(&node);
    (node, dump, hash)
}

fn hash(node: &TestNode) -> String {
    let all = node.rows(&["dump", "--hash"]).pop().unwrap();
    assert_eq!(all["table"], "all");
    all["hash"].as_str().unwrap().to_owned()
}

/// Rows by outcome, over all tables.
fn outcome(node: &TestNode, args: &[&str], input: &str, outcome: &str) -> u64 {
    let output = node.cli_with_input(args, input);
    assert!(output.status.success(), "{}", text(&output));
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.filter(|row| row["outcome"] == outcome).map(|row| row["rows"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_goes_into_a_running_and_into_a_stopped_node_and_stays() {
    let (_source, dump, expected) = dumped(20).await;
    for is_running in [true, false] {
        let mut node = TestNode::new();
        if is_running {
            node.start();
        }
        let loaded = outcome(&node, &["load", "--provided", "-"], &dump, "loaded");
        // The records, and the own CID; what the peer's row says follows from the records.
        assert!(loaded >= 21, "{loaded}");
        assert_eq!(hash(&node), expected, "running: {is_running}");
        assert_eq!(outcome(&node, &["load", "--provided", "-"], &dump, "loaded"), 0);
        if is_running {
            node.kill();
        }
        assert_eq!(hash(&node), expected, "after the kill");
        node.start();
        assert_eq!(hash(&node), expected, "after the start");
        assert_eq!(node.held(&cid("record 7")).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_cids_are_taken_only_when_that_is_asked_for() {
    let (_source, dump, _) = dumped(2).await;
    let node = TestNode::new();
    assert_eq!(
        outcome(&node, &["load", "-"], &dump, "left_out") as usize,
        1 + dump.matches("\"table\":\"meta\"").count()
    );
    assert!(node.rows(&["provided", "--format", "ndjson"]).is_empty());
    assert_eq!(outcome(&node, &["load", "-", "--provided"], &dump, "loaded"), 1);
    assert_eq!(node.rows(&["provided", "--format", "ndjson"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_dump_is_told_and_creates_nothing_where_it_is_none_at_all() {
    let (_source, dump, _) = dumped(3).await;
    let node = TestNode::new();
    let load = |input: &str| node.cli_with_input(&["load", "-"], input);
    fails(&load(""), 65, &["no dump"]);
    fails(&load("{\"table\":\"providers\"}\n"), 65, &["header"]);
    fails(&load(&dump.replacen("\"version\":1", "\"version\":2", 1)), 65, &["version 2", "install"]);
    fails(&node.cli(&["load", "/nonexistent"]), 65, &["/nonexistent"]);
    assert!(!node.dir().exists());
    let lines: Vec<&str> = dump.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    fails(&load(&cut), 65, &["cut off"]);
    let mut short = lines.clone();
    short.remove(1);
    fails(&load(&short.join("\n")), 65, &["its end says"]);
    let mut bad = lines.clone();
    bad.insert(2, "nonsense");
    let end =
        bad.pop().unwrap().replace(&format!("\"rows\":{}", lines.len() - 2), &format!("\"rows\":{}", lines.len() - 1));
    bad.push(&end);
    fails(&load(&bad.join("\n")), 65, &["line 3", "1 bad lines"]);
    // The wrong file altogether.
    let mut worse = vec![lines[0].to_owned()];
    worse.extend((0..200_000).map(|n| format!("nonsense {n}")));
    fails(&load(&worse.join("\n")), 65, &["stopped at line", "--keep-going"]);
    fails(&node.cli_with_input(&["load", "--keep-going", "-"], &worse.join("\n")), 65, &["cut off"]);
    // All the rows of the dump have come in by now.
    assert_eq!(node.rows(&["dump", "providers", "--count"])[0]["rows"], 3);
}
