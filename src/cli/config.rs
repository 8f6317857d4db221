//! `dhtstore config`: check and show the configuration.

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

/// Files that a server has open before its first connection, about.
const FILES_AT_START: u64 = 40;

/// Every setting, commented, with its default.
pub const DEFAULT_FILE: &str = include_str!("../../config/dhtstore.toml");
/// For a server of the public DHT.
pub const AMINO_FILE: &str = include_str!("../../config/amino.toml");
/// For a private network.
pub const PRIVATE_FILE: &str = include_str!("../../config/private.toml");

/// Arguments of `dhtstore config`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore config check                        is the configuration right? (exit 78 if not)
  dhtstore --config new.toml config check      before it is put in place
  dhtstore config show --origin                what is in effect, and where does it come from?
  dhtstore config default > dhtstore.toml      a file with all settings, commented
  dhtstore --set records.ttl=3h config show    try a change")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Validate the configuration, and the files that it names; print warnings
    Check,
    /// Print the effective settings as TOML
    Show {
        /// Say of each setting where it comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print a commented configuration file with the defaults
    Default {
        /// A short file for this profile in place of the full one
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

/// Also loads what the configuration points to: a file that passes here must not stop the server at its next start.
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
    // As this user and session would run it; the unit has a limit of its own.
    if let Ok(limit) = rlimit::Resource::NOFILE.get_hard()
        && let Ok(Some(wanted)) = loaded.config.connections.clone().fit(limit, FILES_AT_START)
    {
        context.notice(format_args!(
            "warning: connections.max = {} and max_pending = {} need more than the {limit} open files that this session allows, and would be lowered; raise LimitNOFILE (ulimit -Hn)",
            wanted.max, wanted.max_pending
        ));
    }
    let identity = identity::load(&loaded.config.data_dir)?;
    if let Some(identity) = &identity {
        loaded.config.clone().fit_identity(&identity.public().to_peer_id())?;
    }
    let name = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no configuration file: the defaults".into(),
    };
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", one warning".into(),
        n => format!(", {n} warnings"),
    };
    context.notice(format_args!("{name}: ok{warnings}"));
    if identity.is_none() {
        let dir = loaded.config.data_dir.display();
        context.notice(format_args!("no identity in {dir} yet: `dhtstore init` or the first `dhtstore run` makes one"));
    }
    Ok(())
}

fn show(loaded: &Loaded, with_origin: bool) -> Result<()> {
    let text = to_toml(&loaded.config)?;
    output::print(if with_origin { annotate(&text, loaded) } else { text })
}

/// The settings as a configuration file.
pub(super) fn to_toml(config: &Config) -> Result<String> {
    toml::to_string(config).map_err(|e| CliError::other(format_args!("cannot write the configuration as TOML: {e}")))
}

/// Appends to each setting where it comes from. Every value stands on a line of its own.
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

    /// Settings that have no default of their own to compare with: they depend on the platform or are unset.
    const WITHOUT_DEFAULT: [&str; 7] =
        ["#data_dir", "#swarm_key", "#socket", "#certificate", "#key", "#ca", "#asn_database"];

    fn defaults(profile: Profile) -> toml::Table {
        let mut table = toml::Table::try_from(Config::defaults(profile)).unwrap();
        table.remove("data_dir");
        table
    }

    /// A commented-out setting: `#name = value`, without a space.
    fn is_setting(line: &str) -> bool {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = "))
    }

    /// Written as the file has it, but read and written again by our types.
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
        // Compared without filling in defaults: every setting must be there, or this fails to parse.
        let config: Config = toml::from_str(&format!("data_dir = \"/x\"\n{uncommented}")).unwrap();
        let mut table = toml::Table::try_from(config).unwrap();
        table.remove("data_dir");
        assert_eq!(table, defaults(Profile::Private));
        // As it stands it says nothing but section names.
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
