//! Tests of logging: wherever stderr leads, the node works and stops as usual. A vital task that panics stops the node
//! at once.

use crate::harness::{TestNode, cid, eventually};
use dhtstore_testkit::small_disk::{fill, small_disk};
use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

/// Capacity of a pipe on Linux.
const PIPE_BYTES: usize = 64 * 1024;

/// Returns a node that logs far more than a pipe holds.
fn talkative() -> TestNode {
    TestNode::new().with_env("RUST_LOG", "trace")
}

fn lost_lines(node: &TestNode) -> u64 {
    node.rows(&["stat"])[0]["network"]["log lines lost"].as_u64().unwrap()
}

/// Checks that the node serves, and that it ends soon after SIGTERM, with exit code 0.
fn works_and_ends(node: &mut TestNode) {
    node.ok(&["provide", &cid("one")]);
    assert_eq!(node.held(&cid("one")).len(), 1);
    let begun = Instant::now();
    assert_eq!(node.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_reader_of_stderr_that_leaves_changes_nothing() {
    let mut node = talkative();
    node.start_logging_to(Stdio::null(), Stdio::piped());
    let mut stderr = node.take_stderr();
    stderr.read_exact(&mut [0; 100]).unwrap();
    drop(stderr);
    eventually("lines are lost", Duration::from_secs(20), || lost_lines(&node) > 0);
    works_and_ends(&mut node);
}

#[test]
fn a_reader_of_stdout_and_stderr_that_sleeps_holds_up_nothing() {
    let mut node = talkative();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The pipe is full before the first line.
    writer.write_all(&[b'.'; PIPE_BYTES]).unwrap();
    node.start_logging_to(writer.try_clone().unwrap().into(), writer.into());
    works_and_ends(&mut node);
    drop(reader);
}

#[test]
fn a_full_disk_below_stderr_changes_nothing() {
    let mut node = talkative();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    node.start_logging_to(full().into(), full().into());
    eventually("lines are lost", Duration::from_secs(20), || lost_lines(&node) > 0);
    works_and_ends(&mut node);
}

#[test]
fn a_log_on_the_full_disk_of_the_data_changes_nothing_on_disk_either() {
    let name = "logging::a_log_on_the_full_disk_of_the_data_changes_nothing_on_disk_either";
    let Some(disk) = small_disk(name, 24) else { return };
    let mut node = talkative().with("STORE_RESERVE", "2MiB");
    let log = || File::options().create(true).append(true).open(disk.join("log")).unwrap();
    node.start_logging_to(log().into(), log().into());
    fill(&disk, 0);
    eventually("lines are lost", Duration::from_secs(20), || lost_lines(&node) > 0);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn the_error_that_ends_a_start_is_no_panic_wherever_it_is_written() {
    let mut node = TestNode::new();
    // An empty file is not a key.
    node.set("SWARM_KEY", "/dev/null");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let status = node.run_command().stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(65));
}

#[test]
fn a_vital_task_that_panics_ends_the_process_at_once_with_an_error() {
    for task in ["swarm", "client", "routing", "reprovider", "control socket", "schedule", "status"] {
        let mut node = TestNode::new().with_env("PANIC_VITAL_TASK", task);
        node.start();
        assert_eq!(node.ended(Duration::from_secs(10)), Some(1), "{task}: {}", node.log());
        let log = node.log();
        assert!(log.contains(&format!("error: the task {task:?} panicked")), "{log}");
    }
}

#[test]
fn a_vital_task_that_panics_ends_the_process_where_nobody_reads_the_log() {
    for task in ["swarm", "schedule"] {
        let mut node = TestNode::new().with_env("PANIC_VITAL_TASK", task);
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b'.'; PIPE_BYTES]).unwrap();
        node.start_logging_to(Stdio::null(), writer.into());
        assert_eq!(node.ended(Duration::from_secs(20)), Some(1), "{task}");
        drop(reader);
    }
}

#[test]
fn a_panic_is_a_line_of_the_log_like_any_other() {
    let node = TestNode::new().with_env("PANIC_VITAL_TASK", "swarm").with_env("RUST_LOG", "info");
    let mut command = node.run_command();
    let output = command.args(["--log-format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    let panics = |line: &serde_json::Value| line["thread"].is_string() && line["panic"] == "PANIC_VITAL_TASK is set";
    let lines: Vec<_> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(panics), "{log}");
    // All lines but the error that ended the process.
    assert_eq!(lines.len() + 1, log.lines().count(), "{log}");
}
