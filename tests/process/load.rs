//! Tests of `dhtstore load`: a dump is loaded into a running and into a stopped node.

use crate::{
    dump::node_with_records,
    harness::{TestNode, cid, fails, text},
};

/// Returns a stopped node, its dump and its hash.
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

/// Loads a dump. Returns the number of rows with an outcome, over all tables.
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
        // The records and the own CID. The peer's row follows from the records.
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
    fails(&load(""), 65, &["not a dump"]);
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
    // A file of which only the header is that of a dump.
    let mut worse = vec![lines[0].to_owned()];
    worse.extend((0..200_000).map(|n| format!("nonsense {n}")));
    fails(&load(&worse.join("\n")), 65, &["stopped at line", "--keep-going"]);
    fails(&node.cli_with_input(&["load", "--keep-going", "-"], &worse.join("\n")), 65, &["cut off"]);
    // By now all rows of the dump are loaded.
    assert_eq!(node.rows(&["dump", "providers", "--count"])[0]["rows"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_behind_each_other_are_all_loaded_and_what_is_none_behind_one_is_reported() {
    let (one, a, _) = dumped(3).await;
    let (two, b, _) = dumped(4).await;
    drop((one, two));
    let held = |node: &TestNode| node.rows(&["dump", "providers"]).len();
    let both = TestNode::started();
    let loaded = both.cli_with_input(&["load", "-"], &format!("{a}{b}"));
    assert_eq!(loaded.status.code(), Some(0), "{}", text(&loaded));
    // The same CIDs by two providers, and one more.
    assert_eq!(held(&both), 7);

    for (input, held_after, words) in [
        (format!("{a}\n\n{b}"), 7, &[][..]),
        (format!("{a}rubbish\n{b}"), 3, &["after the end of a dump"]),
        (
            format!("{}{b}", a.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()),
            6,
            &["line 1 has no end"],
        ),
        (a.replace('\n', "\r\n"), 3, &[]),
        (format!("{a}\u{feff}{b}"), 7, &[]),
        (format!("{a}{}", b.replacen("\"version\":1", "\"version\":9", 1)), 3, &["line", "version 9"]),
        // A bad line of the second dump is numbered from the start of the file.
        (
            format!("{a}{}", b.replacen('\n', "\nrubbish\n", 1)),
            7,
            &[&format!("line {}: ", a.lines().count() + 2), "its end says"],
        ),
        (format!("\u{feff}{a}"), 3, &[]),
    ] {
        let node = TestNode::started();
        let loaded = node.cli_with_input(&["load", "-"], &input);
        let code = if words.is_empty() { 0 } else { 65 };
        assert_eq!(loaded.status.code(), Some(code), "{input}: {}", text(&loaded));
        assert!(words.iter().all(|word| text(&loaded).contains(word)), "{}", text(&loaded));
        assert_eq!(held(&node), held_after, "{input}: {}", text(&loaded));
    }
}

#[test]
fn a_dump_in_another_wrapping_is_refused_with_how_to_unpack_it() {
    let node = TestNode::new();
    let file = node.dir().with_extension("packed");
    for (bytes, word) in [
        (&[0x1f, 0x8b, 8, 0, 1][..], "gzip -dc"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 1], "zstd"),
        (&[0xff, 0xfe, b'{', 0], "UTF-16"),
        (b"\xfd7zXZ\0", "xz"),
        (b"{\"dhtstore\":\"backup\",\"version\":1}\n", "dhtstore restore"),
        (&[], "not a dump"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        fails(&node.cli(&["load", file.to_str().unwrap()]), 65, &[word]);
    }
    assert!(!node.dir().exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_that_nobody_reads_hold_up_no_other_command() {
    let (node, ..) = dumped(1).await;
    let file = node.dir().with_extension("many");
    let row = |n: u32| {
        format!(
            "{{\"table\":\"providers\",\"cid\":\"{}\",\"provider\":\"12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS\",\"addresses\":[],\"received\":\"{}\"}}\n",
            cid(&n.to_string()),
            dhtstore::clock::Clock::wall(&*dhtstore::clock::SystemClock::new())
        )
    };
    let header = node.ok(&["dump", "providers", "--format", "ndjson"]).lines().next().unwrap().to_owned();
    let rows: String = (0..60_000).map(row).collect();
    std::fs::write(&file, format!("{header}\n{rows}{{\"dhtstore\":\"end\",\"rows\":60000}}\n")).unwrap();
    node.cli(&["load", file.to_str().unwrap()]);
    assert!(node.ok(&["dump", "providers", "--format", "ids"]).lines().count() > 60_000, "enough to fill the buffers");
    let mut stalled: Vec<_> = (0..4)
        .map(|_| {
            node.command(&["dump", "providers"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_secs(3));
    for args in [&["dump", "provided"][..], &["provided"], &["backup", "-"], &["dump", "providers", "--hash"]] {
        assert_eq!(node.cli(args).status.code(), Some(0), "{args:?}: {}", text(&node.cli(args)));
    }
    stalled.iter_mut().for_each(|child| {
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
