//! `dhtstore config`, as a process: its output and exit codes.

use crate::home::Home;

#[test]
fn check_of_the_defaults_is_ok() {
    let home = Home::new();
    let run = home.run(&["config", "check"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("ok") && run.stderr.contains("no configuration file"), "{run:?}");
    assert_eq!(run.stdout, "");
    assert!(!home.data().exists(), "check creates nothing");
}

#[test]
fn the_files_that_we_ship_pass_the_check() {
    for (file, warnings) in [("dhtstore.toml", 0), ("amino.toml", 0), ("private.toml", 0)] {
        let home = Home::new();
        let path = format!("{}/config/{file}", env!("CARGO_MANIFEST_DIR"));
        let run = home.run(&["--config", &path, "config", "check"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.stderr.matches("warning").count(), warnings, "{run:?}");
    }
}

#[test]
fn default_prints_the_file_that_we_ship() {
    let home = Home::new();
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/dhtstore.toml")).unwrap();
    assert_eq!(home.run(&["config", "default"]).stdout, shipped);
    assert!(home.run(&["config", "default", "--profile", "amino"]).stdout.contains("profile = \"amino\""));
}

#[test]
fn show_prints_what_reads_back_the_same() {
    let home = Home::new();
    let shown = home.run(&["--set", "records.ttl=20h", "config", "show"]);
    assert!(shown.stdout.contains("ttl = \"20h\""), "{shown:?}");
    home.write("again.toml", &shown.stdout);
    let again = home.path("again.toml");
    assert_eq!(home.run(&["--config", again.to_str().unwrap(), "config", "show"]).stdout, shown.stdout);
}

#[test]
fn show_origin_tells_where_each_setting_comes_from() {
    let home = Home::new();
    home.write("data/dhtstore.toml", "[records]\nttl = \"20h\"\nmax = 5\n");
    let run =
        home.run_with(&[("DHTSTORE_RECORDS_MAX", "6")], &["--set", "connections.max=7", "config", "show", "--origin"]);
    let line = |start: &str| run.stdout.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("ttl").contains("data/dhtstore.toml"), "{run:?}");
    assert!(line("max = 6").contains("DHTSTORE_RECORDS_MAX"), "{run:?}");
    assert!(line("max = 7").contains("--set"), "{run:?}");
    assert!(line("address_ttl").contains("default (private)"), "{run:?}");
}

#[test]
fn every_way_to_be_wrong_is_exit_78_and_says_what_to_do() {
    for (file, words) in [
        ("recrods = 1", &["unknown setting recrods", "did you mean records?"][..]),
        ("[records]\nttl = \"1 fortnight\"", &["records.ttl", "12h"]),
        ("[reprovide]\ninterval = \"12h\"", &["reprovide.interval", "records.ttl"]),
        ("listen = []", &["listen", "/ip4/0.0.0.0/tcp/4001"]),
        ("listen = [", &["line 1"]),
        ("[jobs.gc]\ncron = \"daily\"", &["jobs.gc.cron", "six fields"]),
        ("bootstrap = [\"/ip4/192.0.2.1/tcp/4001\"]", &["bootstrap", "append /p2p/<peer id>"]),
        ("bootstrap = [\"/ip4/192.0.2.1\"]", &["bootstrap", "/tcp/PORT/p2p/<peer id>"]),
        ("announce = [\"/ip4/192.0.2.1/udp/4001\"]", &["announce", "nobody can dial /ip4/192.0.2.1/udp/4001", "PORT"]),
    ] {
        let home = Home::new();
        home.write("data/dhtstore.toml", file);
        let run = home.run(&["config", "check"]);
        assert_eq!(run.code, 78, "{file}: {run:?}");
        assert_eq!(run.stdout, "");
        for word in words {
            assert!(run.stderr.contains(word), "{word:?}: {run:?}");
        }
        assert!(run.stderr.contains("dhtstore.toml"), "names the file: {run:?}");
    }
}

#[test]
fn unknown_environment_variables_are_errors() {
    let home = Home::new();
    let run = home.run_with(&[("DHTSTORE_RECORD_TTL", "1h")], &["config", "check"]);
    assert_eq!(run.code, 78);
    assert!(run.stderr.contains("did you mean DHTSTORE_RECORDS_TTL?"), "{run:?}");
}

#[test]
fn a_named_configuration_file_that_is_missing_is_exit_78() {
    let run = Home::new().run(&["--config", "/nonexistent/x.toml", "config", "check"]);
    assert!(run.code == 78 && run.stderr.contains("/nonexistent/x.toml"), "{run:?}");
}

#[test]
fn a_public_bootstrapper_with_a_short_ttl_is_a_warning() {
    let home = Home::new();
    let addr = "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN";
    let run = home.run(&["--set", &format!("bootstrap={addr}"), "config", "check"]);
    assert!(run.code == 0 && run.stderr.contains("45 %") && run.stderr.contains("amino"), "{run:?}");
    let quiet = home.run(&["-q", "--set", &format!("bootstrap={addr}"), "config", "check"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
}

#[test]
fn usage_errors_are_exit_64_and_help_and_version_are_0() {
    let home = Home::new();
    for args in [
        &["frobnicate"][..],
        &["config"],
        &["config", "chekc"],
        &["--log-format", "xml", "config", "check"],
        &[],
        &["-v", "-q", "id"],
    ] {
        let run = home.run(args);
        assert_eq!(run.code, 64, "{args:?}: {run:?}");
        assert_eq!(run.stdout, "", "{args:?}");
    }
    for args in [&["--help"][..], &["help", "config"], &["init", "--help"], &["--version"]] {
        let run = home.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn every_command_has_examples_in_its_help_where_we_wrote_it() {
    let home = Home::new();
    for command in ["init", "id", "config"] {
        assert!(home.run(&[command, "--help"]).stdout.contains("Examples:"), "{command}");
    }
}

#[test]
fn the_data_directory_comes_from_flag_then_environment_then_file_then_platform() {
    let home = Home::new();
    let shown = |env: &[(&str, &str)], args: &[&str]| {
        let args = [args, &["config", "show"]].concat();
        let run = home.run_bare(env, &args);
        let line = run.stdout.lines().find(|l| l.starts_with("data_dir")).unwrap_or_default();
        line.split('"').nth(1).unwrap_or_default().to_owned()
    };
    home.write("c.toml", "data_dir = \"from-file\"\n");
    let file = home.path("c.toml");
    let file = file.to_str().unwrap();
    let (flag, variable) = (("--data-dir", "/from/flag"), ("DHTSTORE_DATA_DIR", "/from/env"));
    assert_eq!(shown(&[variable], &[flag.0, flag.1, "--config", file]), "/from/flag");
    assert_eq!(shown(&[variable], &["--config", file]), "/from/env");
    assert_eq!(shown(&[], &["--config", file]), home.path("from-file").to_str().unwrap());
    assert_eq!(shown(&[("STATE_DIRECTORY", "/var/lib/x:/var/lib/y")], &[]), "/var/lib/x");
}

#[test]
fn rt_6_a_database_of_systems_that_cannot_be_used_stops_the_start_with_exit_78() {
    let fixture = |name: &str| format!("{}/tests/fixtures/asn/{name}", env!("CARGO_MANIFEST_DIR"));
    let home = Home::new();
    let set = |path: &str| [format!("routing.asn_database={path}"), "profile=amino".into()];
    let loopback = "listen=/ip4/127.0.0.1/tcp/0";
    for (path, words) in [
        ("/nonexistent/asn.mmdb".to_owned(), "cannot read"),
        (fixture("make.py"), "damaged"),
        (fixture("country.mmdb"), "no autonomous system"),
    ] {
        let [database, amino] = set(&path);
        for command in [&["config", "check"][..], &["run"]] {
            let args =
                [&["--set", &database, "--set", &amino, "--set", loopback, "--set", "bootstrap="], command].concat();
            let run = home.run(&args);
            assert_eq!(run.code, 78, "{run:?}");
            assert!(
                [&path, words, "GeoLite2-ASN", "unset routing.asn_database"].iter().all(|w| run.stderr.contains(*w)),
                "{run:?}"
            );
        }
    }
    let [database, amino] = set(&fixture("number.mmdb"));
    let run = home.run(&["--set", &database, "--set", &amino, "config", "check"]);
    assert_eq!((run.code, run.stderr.contains("warning")), (0, false), "{run:?}");
}

#[test]
fn net_5_a_secure_websocket_without_a_usable_certificate_is_refused_with_the_next_step() {
    let home = Home::new();
    let listen = ["--set", "listen=/ip4/127.0.0.1/tcp/0/tls/ws"];
    for command in [&["config", "check"][..], &["run"]] {
        let run = home.run(&[&listen[..], command].concat());
        assert_eq!(run.code, 78, "{run:?}");
        assert!(run.stderr.contains("websocket.certificate and websocket.key"), "{run:?}");
    }
    let missing = home.path("missing.pem");
    let [certificate, key] = ["certificate", "key"].map(|name| format!("websocket.{name}={}", missing.display()));
    let files = [&listen[..], &["--set", &certificate, "--set", &key]].concat();
    // A missing file is not a wrong setting, so the exit code is 65, as for other files that cannot be read. A restart
    // does not help with it either.
    for (command, code) in [(&["config", "check"][..], 65), (&["run"], 65)] {
        let run = home.run(&[&files[..], command].concat());
        assert_eq!(run.code, code, "{run:?}");
        assert!(run.stderr.contains("missing.pem") && run.stderr.contains("correct the path"), "{run:?}");
    }
}

#[test]
fn what_can_never_work_is_refused_with_what_to_do() {
    let home = Home::new();
    let peer = "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";
    let hash = "uEiDikp5KVUgkLta1EjUN-IKbHk-dUBg8VzKgf5nXxLK46w";
    for transport in [
        format!("udp/4001/quic-v1/webtransport/certhash/{hash}"),
        format!("udp/4001/webrtc-direct/certhash/{hash}"),
        "udp/4001/quic".to_owned(),
        "udp/4001/utp".to_owned(),
        "tcp/80/http".to_owned(),
        "tcp/443/https".to_owned(),
    ] {
        for (key, tail) in
            [("bootstrap", format!("/p2p/{peer}")), ("announce", String::new()), ("append_announce", String::new())]
        {
            let run = home.run(&["--set", &format!("{key}=/ip4/8.8.8.8/{transport}{tail}"), "config", "check"]);
            assert!(run.code == 78 && run.stderr.contains("dhtstore speaks TCP"), "{key} {transport}: {run:?}");
        }
        let run = home.run(&["--set", &format!("listen=/ip4/127.0.0.1/{transport}"), "config", "check"]);
        assert_eq!(run.code, 78, "{transport}: {run:?}");
    }
    // Other programs may serve the content, and a relay may lead to this node.
    let gateway = "provide.addresses=/dns/gw.example/tcp/443/https";
    let circuit = format!("announce=/ip4/8.8.8.8/tcp/4001/p2p/{peer}/p2p-circuit");
    let named = format!(
        "bootstrap=/dnsaddr/bootstrap.example/p2p/{peer},/dns/a.example/tcp/443/tls/sni/a.example/ws/p2p/{peer}"
    );
    for good in [gateway, &circuit, &named] {
        assert_eq!(home.run(&["--set", good, "config", "check"]).code, 0, "{good}");
    }
    for cron in ["0 0 0 31 4 *", "0 0 0 30 2 *", "0 0 0 31 2,4,6,9,11 *"] {
        let run = home.run(&["--set", &format!("jobs.gc.cron={cron}"), "config", "check"]);
        assert!(run.code == 78 && run.stderr.contains("never fires"), "{cron}: {run:?}");
    }
    for cron in ["0 0 0 29 2 *", "0 0 0 31 12 *", "*/5 * * * * *"] {
        assert_eq!(home.run(&["--set", &format!("jobs.gc.cron={cron}"), "config", "check"]).code, 0, "{cron}");
    }
}

#[test]
fn an_announced_address_that_names_another_peer_is_refused_by_check_and_run() {
    let home = Home::new();
    assert_eq!(home.run(&["init"]).code, 0);
    let own = home.run(&["--set", "listen=/ip4/127.0.0.1/tcp/1", "id", "--bootstrap"]).stdout;
    let own = own.trim().rsplit('/').next().unwrap();
    let other = "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";
    let announce = |peer: &str| format!("announce=/ip4/8.8.8.8/tcp/4001/p2p/{peer}");
    assert_eq!(home.run(&["--set", &announce(own), "config", "check"]).code, 0);
    for command in [&["config", "check"][..], &["run"]] {
        let run = home.run(&[&["--set", &announce(other)][..], command].concat());
        assert!(run.code == 78 && run.stderr.contains("names another peer than this node"), "{run:?}");
    }
}

#[test]
fn what_is_named_or_present_and_cannot_be_read_stops_the_start() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("data")).unwrap();
    let link = |name: &str| {
        let path = home.path("data").join(name);
        std::os::unix::fs::symlink("/nonexistent/secret", &path).unwrap();
        path
    };
    for (name, code, words) in [
        ("swarm.key", 65, "cannot read the swarm key"),
        ("identity.key", 65, "cannot read the identity"),
        ("dhtstore.toml", 78, "dhtstore.toml"),
    ] {
        let path = link(name);
        for command in [&["config", "check"][..], &["run"]] {
            let run = home.run(command);
            assert!(run.code == code && run.stderr.contains(words), "{name}: {run:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let run = home.run(&["run"]);
        assert_eq!(run.code, code, "a directory in place of {name}: {run:?}");
        std::fs::remove_dir(&path).unwrap();
    }
    assert!(!home.path("data/identity.key").exists(), "nothing was made meanwhile");
    let run = home.run(&["--set", "swarm_key=/nonexistent/swarm.key", "run"]);
    assert!(run.code == 65, "{run:?}");
}

#[test]
fn a_pipe_to_which_nobody_writes_ends_the_start_and_does_not_hang_it() {
    let home = Home::new();
    assert_eq!(home.run(&["init", "--private"]).code, 0);
    let path = home.path("data/swarm.key");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let run = home.run(&["run"]);
    assert!(run.code == 65 && run.stderr.contains("no process writes to it"), "{run:?}");
}

#[test]
fn a_key_in_another_form_names_the_command_that_takes_it_over() {
    let home = Home::new();
    assert_eq!(home.run(&["init"]).code, 0);
    let key = std::fs::read(home.path("data/identity.key")).unwrap();
    let text = multibase::Base::Base64Pad.encode(key);
    home.write("data/identity.key", format!("\u{feff}{text}\n"));
    let run = home.run(&["run"]);
    assert!(run.code == 65 && run.stderr.contains("`dhtstore init --identity FILE`"), "{run:?}");
}

#[test]
fn a_setting_of_an_older_version_is_warned_of_and_not_refused() {
    let home = Home::new();
    home.write("data/dhtstore.toml", "[jobs.export]\ninterval = \"2h\"\n");
    let run = home.run_with(&[("DHTSTORE_JOBS_EXPORT_CRON", "0 * * * * *")], &["config", "check"]);
    assert_eq!(run.code, 0, "{run:?}");
    for key in ["jobs.export.interval", "jobs.export.cron"] {
        let warning = format!("{key}: has no effect, since provider records are no longer exported");
        assert!(run.stderr.contains(&warning), "{run:?}");
    }
    let run = home.run(&["--set", "jobs.exports.interval=1h", "config", "check"]);
    assert!(run.code == 78 && run.stderr.contains("unknown setting"), "{run:?}");
}

#[test]
fn libp2p_force_pnet_forbids_to_run_in_the_open() {
    let home = Home::new();
    for command in [&["config", "check"][..], &["run"]] {
        let run = home.run_with(&[("LIBP2P_FORCE_PNET", "1")], command);
        assert!(run.code == 78 && run.stderr.contains("LIBP2P_FORCE_PNET=1"), "{run:?}");
    }
    assert_eq!(home.run_with(&[("LIBP2P_FORCE_PNET", "1")], &["init", "--private"]).code, 0);
    assert_eq!(home.run_with(&[("LIBP2P_FORCE_PNET", "1")], &["config", "check"]).code, 0);
}

#[test]
fn a_peer_id_in_an_address_may_be_a_cid() {
    let home = Home::new();
    let cid = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
    let run = home.run(&["--set", &format!("bootstrap=/ip4/8.8.8.8/tcp/1/p2p/{cid}"), "config", "show"]);
    assert!(run.code == 0 && run.stdout.contains("/ip4/8.8.8.8/tcp/1/p2p/12D3KooW"), "{run:?}");
}
