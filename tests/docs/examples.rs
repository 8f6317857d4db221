//! The examples in the help of each command are command lines that the command accepts.

use crate::sandbox::Sandbox;
use std::fmt::Write;

/// Each placeholder in the examples, and the value that replaces it here. `PEER` is the node's own id.
const VALUES: [(&str, &str); 8] = [
    ("bafy…", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"),
    ("/ipns/k51…", "/ipns/PEER"),
    ("/ipns/12D3…", "/ipns/PEER"),
    ("12D3Koo…", "PEER"),
    ("age1…", "age1"),
    (" CID", " bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"),
    ("/mnt/usb/", ""),
    ("/srv/dht", "srv"),
];

/// The exit code of a command line that clap refuses.
const USAGE: i32 = 64;
/// Files that examples read. `cids.txt` comes first, since it needs no node.
const FILES: &str = "echo bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy > cids.txt;
    dhtstore config default > new.toml; dhtstore dump > all.ndjson; cp var/lib/dhtstore/identity.key old.key;
    cp old.key key.txt; dhtstore backup node.backup; cp node.backup node.backup.age";

/// The names of the commands, as `--help` lists them.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

/// The command lines below `Examples:`, without the explanations after them.
fn examples(help: &str) -> Vec<String> {
    let (_, below) = help.split_once("Examples:").unwrap_or_default();
    let lines = below.lines().map(str::trim).filter(|line| line.contains("dhtstore "));
    lines.filter(|line| !line.starts_with("Exit")).map(|line| line.split("   ").next().unwrap().to_owned()).collect()
}

#[test]
fn every_example_of_the_help_is_a_command_line_that_the_program_accepts() {
    let sandbox = Sandbox::new();
    let help = |command: &str| sandbox.exit_code(&format!("dhtstore {command} --help")).1;
    let all = help("");
    let commands = commands(&all);
    assert!(commands.len() > 20, "{commands:?}");
    let mut found: Vec<String> = examples(&all);
    found.extend(commands.iter().flat_map(|command| examples(&help(command))));
    assert!(found.len() > 50, "{found:?}");

    let (code, peer) = sandbox.exit_code("dhtstore init >&2; dhtstore id --format ids 2>/dev/null | head -n 1");
    assert_eq!(code, Some(0), "{peer}");
    let peer = peer.lines().next().unwrap().to_owned();
    sandbox.exit_code("systemctl start dhtstore");
    let (code, said) = sandbox.exit_code(FILES);
    assert_eq!(code, Some(0), "{said}");
    let mut refused = String::new();
    for example in found {
        let mut line = example.clone();
        for (shown, value) in VALUES {
            line = line.replace(shown, value);
        }
        let line = line.replace("PEER", &peer);
        // The started node keeps running, so an example of `run` cannot start a second one and ends.
        let (code, said) = sandbox.exit_code(&format!("mkdir -p old-host srv; timeout 30 {}", in_one(&line)));
        if code == Some(USAGE) || code == Some(124) || said.contains("Usage:") || said.contains("panicked") {
            let _ = writeln!(refused, "{example}: exit {code:?}\n{said}");
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

/// A command line as one word for a shell.
fn in_one(line: &str) -> String {
    format!("bash -c '{}'", line.replace('\'', r"'\''"))
}
