use super::*;
use crate::config::Websocket;
use std::time::Duration;

fn load(file: Option<&str>, env: &[(&str, &str)], set: &[&str]) -> (tempfile::TempDir, Result<Loaded, ConfigError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let sources = Sources {
        file: Some(path),
        data_dir: Some(dir.path().join("data")),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
    };
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let loaded = sources.load_with(env);
    (dir, loaded)
}

#[track_caller]
fn refused(file: &str, env: &[(&str, &str)], set: &[&str], words: &[&str]) {
    let text = load(Some(file), env, set).1.unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// Collects the path of every value that is not a table.
fn leaves(prefix: &str, value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(&key, value, found);
            }
        }
        _ => found.push(prefix.to_owned()),
    }
}

#[test]
fn the_list_of_keys_is_complete() {
    let mut config = Config::defaults(Profile::Private);
    config.swarm_key = Some("/x".into());
    config.control.socket = Some("/y".into());
    config.routing.asn_database = Some("/z".into());
    let file = || Some("/z".into());
    config.websocket = Websocket { certificate: file(), key: file(), ca: file() };
    let mut found = Vec::new();
    leaves("", &toml::Value::try_from(&config).unwrap(), &mut found);
    found.sort();
    let mut known: Vec<_> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "[records]\nttl = \"20h\"\nmax = 7\naddress_ttl = \"30h\"\n";
    let env = [("DHTSTORE_RECORDS_TTL", "30h"), ("DHTSTORE_RECORDS_ADDRESS_TTL", "31h")];
    let (_dir, loaded) = load(Some(file), &env, &["records.ttl=40h"]);
    let loaded = loaded.unwrap();
    let records = &loaded.config.records;
    assert_eq!(records.ttl, Duration::from_secs(40 * 3600));
    assert_eq!(records.address_ttl, Duration::from_secs(31 * 3600));
    assert_eq!((records.max, records.max_peers), (7, Config::defaults(Profile::Private).records.max_peers));
    assert_eq!(loaded.origin("records.ttl"), &Origin::Flag("--set"));
    assert_eq!(loaded.origin("records.address_ttl"), &Origin::Environment("DHTSTORE_RECORDS_ADDRESS_TTL".into()));
    assert!(matches!(loaded.origin("records.max"), Origin::File(_)));
    assert_eq!(loaded.origin("records.max_peers"), &Origin::Default);
}

#[test]
fn the_profile_decides_on_defaults_wherever_it_is_set() {
    for (file, env, set) in [
        ("profile = \"amino\"", &[][..], &[][..]),
        ("", &[("DHTSTORE_PROFILE", "amino")][..], &[][..]),
        ("", &[][..], &["profile=amino"][..]),
    ] {
        let (_dir, loaded) = load(Some(file), env, set);
        let config = loaded.unwrap().config;
        assert_eq!((config.profile, config.records.ttl), (Profile::Amino, defaults::AMINO_TTL));
        assert!(!config.bootstrap.is_empty());
    }
}

#[test]
fn every_setting_has_an_environment_variable() {
    let env = [
        ("DHTSTORE_LISTEN", "/ip4/127.0.0.1/tcp/0, /ip4/127.0.0.1/udp/0/quic-v1"),
        ("DHTSTORE_CONNECTIONS_MAX", "1_000"),
        ("DHTSTORE_JOBS_ROUTING_REFRESH_CRON", "0 0 * * * *"),
        ("DHTSTORE_STREAMS_READ_BUDGET", "1GiB"),
        ("DHTSTORE_CONTROL_SOCKET", "/run/x.sock"),
        ("DHTSTORE_CONFIG", "/not/read/here"),
    ];
    let (_dir, loaded) = load(None, &env, &[]);
    let config = loaded.unwrap().config;
    assert_eq!((config.listen.len(), config.connections.max), (2, 1_000));
    assert_eq!(config.jobs.routing_refresh.cron, "0 0 * * * *");
    assert_eq!(config.streams.read_budget, 1 << 30);
    assert_eq!(config.control_socket(), Path::new("/run/x.sock"));
}

#[test]
fn unknown_names_are_errors_that_suggest_the_nearest() {
    refused("[records]\ntll = \"1h\"", &[], &[], &["node.toml", "records.tll", "did you mean records.ttl?"]);
    refused("[record]\nttl = \"1h\"", &[], &[], &["unknown setting record;", "did you mean records?"]);
    refused("ttl = \"1h\"", &[], &[], &["unknown setting ttl", "records.ttl"]);
    refused("", &[("DHTSTORE_RECORD_TTL", "1h")], &[], &["DHTSTORE_RECORD_TTL", "did you mean DHTSTORE_RECORDS_TTL?"]);
    refused("", &[], &["record.ttl=1h"], &["--set", "did you mean records.ttl?"]);
    refused("quux_quux = 1", &[], &[], &["quux_quux", "dhtstore config default"]);
    refused("records = 3", &[], &[], &["records is a section"]);
    refused("", &[], &["records.ttl"], &["key=value"]);
}

#[test]
fn values_that_do_not_fit_name_key_and_origin() {
    refused("[records]\nttl = \"soon\"", &[], &[], &["node.toml", "records.ttl", "\"soon\" is not a duration", "12h"]);
    refused("[connections]\nmax = \"many\"", &[], &[], &["node.toml", "connections.max"]);
    refused("[connections]\nmax = -1", &[], &[], &["connections.max"]);
    refused("listen = [\"localhost:4001\"]", &[], &[], &["listen", "localhost:4001", "/ip4/192.0.2.1/tcp/4001"]);
    refused("listen = \"/ip4/0.0.0.0/tcp/4001\"", &[], &[], &["listen"]);
    refused("", &[("DHTSTORE_CONNECTIONS_MAX", "many")], &[], &["DHTSTORE_CONNECTIONS_MAX", "not a number"]);
    refused("[streams]\nread_budget = \"64 apples\"", &[], &[], &["streams.read_budget", "64MiB"]);
    refused("profile = \"public\"", &[], &[], &["profile", "private", "amino"]);
    refused("[reprovide]\ninterval = \"13h\"", &[], &[], &["node.toml: reprovide.interval"]);
}

#[test]
fn broken_toml_names_line_and_column() {
    refused("listen = [\n\"/ip4\"\nrecords", &[], &[], &["node.toml", "line 3"]);
}

#[test]
fn a_named_file_that_is_missing_or_huge_is_an_error() {
    let missing = Sources { file: Some("/nonexistent/dhtstore.toml".into()), ..Sources::default() };
    assert!(missing.load_with(BTreeMap::new()).unwrap_err().to_string().contains("/nonexistent/dhtstore.toml"));
    refused(&"#\n".repeat(600_000), &[], &[], &["larger than"]);
}

#[test]
fn the_file_in_the_data_directory_is_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), "swarm_key = \"keys/swarm.key\"").unwrap();
    let sources = Sources { data_dir: Some(dir.path().into()), ..Sources::default() };
    let loaded = sources.load_with(BTreeMap::new()).unwrap();
    assert_eq!(loaded.file, Some(dir.path().join(FILE_NAME)));
    // Relative to the file, not to the working directory.
    assert_eq!(loaded.config.swarm_key, Some(dir.path().join("keys/swarm.key")));
}

#[test]
fn a_swarm_key_in_the_data_directory_is_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("swarm.key"), "").unwrap();
    let sources = Sources { data_dir: Some(dir.path().into()), ..Sources::default() };
    let loaded = sources.load_with(BTreeMap::new()).unwrap();
    assert_eq!(loaded.config.swarm_key, Some(dir.path().join("swarm.key")));
    assert_eq!(loaded.origin("swarm_key"), &Origin::DataDir);
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in ".{0,200}") {
        let _ = load(Some(&text), &[], &[]);
    }

    #[test]
    fn sizes_and_durations_survive_being_written(bytes in 1usize << 20..1 << 36, seconds in 1u64..2_000_000) {
        let mut config = Config::defaults(Profile::Private);
        config.streams.read_budget = bytes;
        config.records.ttl = Duration::from_secs(seconds);
        let text = toml::to_string(&config).unwrap();
        proptest::prop_assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }
}
