//! `dhtstore config`: checks and shows the configuration.

use super::{Context, error::CliError, error::Result, error::ResultExt, output};
use crate::{
    config::{
        Config, Profile,
        file::{Loaded, Origin},
    },
    node::asn::AsnDatabase,
    transport::{certificate, identity, swarm_key::SwarmKey},
};
use std::fmt::Write;

/// Approximate number of files that a server has open before its first connection.
const FILES_AT_START: u64 = 40;

/// Configuration file with every setting, commented out, at its default.
pub const DEFAULT_FILE: &str = include_str!("../../config/dhtstore.toml");
/// Configuration file for a server of the public DHT.
pub const AMINO_FILE: &str = include_str!("../../config/amino.toml");
/// Configuration file for a private network.
pub const PRIVATE_FILE: &str = include_str!("../../config/private.toml");

/// Arguments of `dhtstore config`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore config check                        check the configuration (exit 78 if wrong)
  dhtstore --config new.toml config check      check a new file before use
  dhtstore config show --origin                settings in effect, and where each comes from
  dhtstore config default > dhtstore.toml      a file with all settings, commented out
  dhtstore --set records.ttl=3h config show    try a change")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Validate the configuration and the files that it names; print warnings
    Check,
    /// Print the effective settings as TOML
    Show {
        /// Add the origin of each setting, such as the file or a flag
        #[arg(long)]
        origin: bool,
    },
    /// Print a configuration file with the defaults and comments
    Default {
        /// Print a short file for this profile instead of the full one
        #[arg(long, value_parser = super::profile_parser())]
        profile: Option<Profile>,
    },
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    match args.action {
        Action::Check => check(context),
        Action::Show { origin } => show(&context.sources().load_detailed()?, origin),
        Action::Default { profile } => output::print(match profile {
            None => DEFAULT_FILE,
            Some(Profile::Amino) => AMINO_FILE,
            Some(Profile::Private) => PRIVATE_FILE,
        }),
    }
}

/// Loads the configuration and every file that it names. A server must be able to start with any configuration that
/// passes.
fn check(context: &Context) -> Result<()> {
    let loaded = context.sources().load_detailed()?;
    for warning in &loaded.warnings {
        context.notice(format_args!("warning: {}: {warning}", loaded.origin(warning.key)));
    }
    if let Some(path) = &loaded.config.swarm_key {
        SwarmKey::load(path).context(format_args!("{}: swarm_key", loaded.origin("swarm_key")))?;
    }
    if let Some(path) = &loaded.config.routing.asn_database {
        AsnDatabase::load(path)
            .context(format_args!("{}: routing.asn_database", loaded.origin("routing.asn_database")))?;
    }
    certificate::check(&loaded.config.websocket.files())?;
    loaded.config.check_forced_privacy()?;
    // The limit of this user and session; the systemd unit sets its own.
    if let Ok(limit) = rlimit::Resource::NOFILE.get_hard()
        && let Ok(Some(wanted)) = loaded.config.connections.clone().fit(limit, FILES_AT_START)
    {
        context.notice(format_args!(
            "warning: connections.max = {} and connections.max_pending = {} need more than the {limit} open files that \
             this session allows; `dhtstore run` lowers both; to keep them, raise LimitNOFILE (`ulimit -Hn`)",
            wanted.max, wanted.max_pending
        ));
    }
    let identity = identity::load(&loaded.config.data_dir)?;
    if let Some(identity) = &identity {
        loaded.config.clone().fit_identity(&identity.public().to_peer_id())?;
    }
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no configuration file, defaults in use".into(),
    };
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", one warning".into(),
        n => format!(", {n} warnings"),
    };
    context.notice(format_args!("{name}: ok{warnings}"));
    if identity.is_none() {
        let dir = loaded.config.data_dir.display();
        context
            .notice(format_args!("no identity in {dir} yet: `dhtstore init` or the first `dhtstore run` creates one"));
    }
    Ok(())
}

fn show(loaded: &Loaded, with_origin: bool) -> Result<()> {
    let text = to_toml(&loaded.config)?;
    output::print(if with_origin { annotate(&text, loaded) } else { text })
}

/// Returns the settings as a configuration file.
pub(super) fn to_toml(config: &Config) -> Result<String> {
    toml::to_string(config).map_err(|e| CliError::other(format_args!("cannot write the configuration as TOML: {e}")))
}

/// Appends to each setting its origin. Expects each value on a line of its own.
fn annotate(text: &str, loaded: &Loaded) -> String {
    let mut section = String::new();
    let mut annotated = String::with_capacity(2 * text.len());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        }
        let origin = line.split_once(" = ").map(|(key, _)| loaded.origin(&format!("{section}{key}")));
        // Writing to a string cannot fail.
        let _ = match origin {
            Some(Origin::Default) => writeln!(annotated, "{line}  # default ({})", loaded.config.profile.name()),
            Some(origin) => writeln!(annotated, "{line}  # {origin}"),
            None => writeln!(annotated, "{line}"),
        };
    }
    annotated
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings without a fixed default: they depend on the platform or are unset.
    const WITHOUT_DEFAULT: [&str; 7] =
        ["#data_dir", "#swarm_key", "#socket", "#certificate", "#key", "#ca", "#asn_database"];

    fn defaults(profile: Profile) -> toml::Table {
        let mut table = toml::Table::try_from(Config::defaults(profile)).unwrap();
        table.remove("data_dir");
        table
    }

    /// Returns whether a line is a commented-out setting: `#name = value`, without a space.
    fn is_setting(line: &str) -> bool {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = "))
    }

    /// Returns the settings of a file, merged over the defaults, in the form in which our types are serialised.
    fn normalised(text: &str, profile: Profile) -> toml::Table {
        let mut merged = toml::Table::try_from(Config::defaults(profile)).unwrap();
        merge(&mut merged, text.parse().unwrap());
        let config: Config = merged.try_into().unwrap();
        let mut table = toml::Table::try_from(config).unwrap();
        table.remove("data_dir");
        table
    }

    fn merge(into: &mut toml::Table, from: toml::Table) {
        for (key, value) in from {
            match (into.get_mut(&key), value) {
                (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
                (_, value) => drop(into.insert(key, value)),
            }
        }
    }

    #[test]
    fn the_commented_default_file_parses_and_equals_the_defaults() {
        let uncommented: String = DEFAULT_FILE
            .lines()
            .filter(|line| !WITHOUT_DEFAULT.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{}\n", if is_setting(line) { &line[1..] } else { line }))
            .collect();
        // No defaults are filled in here: parsing fails if a setting is missing.
        let config: Config = toml::from_str(&format!("data_dir = \"/x\"\n{uncommented}")).unwrap();
        let mut table = toml::Table::try_from(config).unwrap();
        table.remove("data_dir");
        assert_eq!(table, defaults(Profile::Private));
        // With its settings commented out, the file has only section names.
        assert_eq!(normalised(DEFAULT_FILE, Profile::Private), defaults(Profile::Private));
    }

    #[test]
    fn the_optional_settings_are_shown_as_well() {
        for name in WITHOUT_DEFAULT {
            assert!(DEFAULT_FILE.lines().any(|line| line.starts_with(name)), "{name}");
        }
    }

    #[test]
    fn the_profile_files_equal_the_profiles() {
        assert_eq!(normalised(AMINO_FILE, Profile::Amino), defaults(Profile::Amino));
        assert_eq!(normalised(PRIVATE_FILE, Profile::Private), defaults(Profile::Private));
    }
}
