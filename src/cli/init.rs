//! `dhtstore init`: creates the data directory, the identity and, if asked, the swarm key and the configuration.

mod join;
pub(crate) mod kubo;

use super::{
    Context, config,
    error::{CliError, Result},
    output,
};
use crate::{
    config::{Profile, file::FILE_NAME as CONFIG_NAME},
    transport::{
        addresses::is_websocket,
        identity::{self, Identity, write_private_file},
        swarm_key::{self, SwarmKey},
    },
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Arguments of `dhtstore init`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore init                          an identity in the default data directory
  dhtstore init --profile amino          a server of the public DHT
  dhtstore init --private > join.sh      a private network; Kubo nodes join it with join.sh
  dhtstore init --from-kubo ~/.ipfs      take over a Kubo node: peer id, swarm key, bootstrap
  dhtstore init --identity old.key       use an existing private key

Never overwrites an existing file (exit 73).")]
pub struct Args {
    /// Write a configuration file for this kind of network into the data directory
    #[arg(long, value_parser = super::profile_parser())]
    profile: Option<Profile>,
    /// Make a private network: write a new swarm.key, and print the commands with which a Kubo node joins
    #[arg(long, conflicts_with = "from_kubo")]
    private: bool,
    /// Copy identity, swarm.key, bootstrap peers and addresses from this Kubo repository
    #[arg(long, value_name = "DIR", conflicts_with = "identity")]
    from_kubo: Option<PathBuf>,
    /// Use the private key in FILE: libp2p's protobuf, its base64, or JSON with a PrivKey
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

/// Everything that will be written. Checked as a whole before the first write.
struct Plan {
    data_dir: PathBuf,
    /// `None` keeps the existing identity.
    identity: Option<Identity>,
    swarm_key: Option<SwarmKey>,
    config: Option<String>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    if args.private && args.profile == Some(Profile::Amino) {
        return Err(CliError::usage(
            "cannot combine --private and --profile amino: amino is the public network; leave one of them out",
        ));
    }
    let writes_config = args.profile.is_some() || args.from_kubo.is_some();
    if let (true, Some(file)) = (writes_config, &context.global.config) {
        return Err(CliError::usage(format_args!(
            "cannot write a configuration: {} is in use (--config or DHTSTORE_CONFIG); leave that out, or set the \
             profile in that file",
            file.display()
        )));
    }
    let data_dir = context.data_dir()?.to_path_buf();
    let mut plan = Plan { data_dir, identity: None, swarm_key: None, config: None };
    let mut notes = Vec::new();
    match (&args.from_kubo, &args.identity) {
        (Some(repository), _) => {
            let taken = kubo::read(repository, args.profile)?;
            plan.identity = Some(taken.identity);
            plan.swarm_key = taken.swarm_key;
            plan.config = Some(taken.config);
            notes = taken.notes;
        }
        (None, Some(file)) => plan.identity = Some(Identity::import(file)?),
        // An existing node keeps its identity when `init --private` makes its network private.
        (None, None) if args.private && identity::load(&plan.data_dir)?.is_some() => {}
        (None, None) => plan.identity = Some(Identity::generate()?),
    }
    if let (None, Some(profile)) = (&plan.config, args.profile) {
        plan.config = Some(profile_file(profile).to_owned());
    }
    if args.private {
        plan.swarm_key = Some(SwarmKey::generate()?);
        let configured = context.sources().load_detailed()?.file;
        if let (None, Some(file)) = (&plan.config, &configured) {
            notes.push(format!(
                "add `swarm_key = \"{}\"` to {}: with that line the node refuses to start without its key, so it \
                 is never open to peers outside the network",
                plan.swarm_key_path().display(),
                file.display()
            ));
        } else {
            let text = plan.config.take().unwrap_or_else(|| profile_file(Profile::Private).to_owned());
            plan.config = Some(with_swarm_key(&text));
        }
    }
    plan.check()?;
    plan.write()?;
    plan.report(context);
    for note in notes {
        context.notice(note);
    }
    finish(&plan, args.private, context)
}

impl Plan {
    fn identity_path(&self) -> PathBuf {
        self.data_dir.join(identity::FILE_NAME)
    }

    fn swarm_key_path(&self) -> PathBuf {
        self.data_dir.join(swarm_key::FILE_NAME)
    }

    fn config_path(&self) -> PathBuf {
        self.data_dir.join(CONFIG_NAME)
    }

    /// Refuses existing files before the first write, so that a failed `init` can be repeated.
    fn check(&self) -> Result<()> {
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        if self.identity.is_some() && exists(&self.identity_path()) {
            return Err(CliError::cannot_create(format_args!(
                "cannot create {}: it exists and is not overwritten; choose another directory with --data-dir, or \
                 move the file away if you no longer need its peer id",
                self.identity_path().display()
            )));
        }
        if self.swarm_key.is_some() && exists(&self.swarm_key_path()) {
            return Err(CliError::cannot_create(format_args!(
                "cannot create {}: it exists and is not overwritten; the nodes of that network need it; move it away \
                 to make a new one",
                self.swarm_key_path().display()
            )));
        }
        if self.config.is_some() && exists(&self.config_path()) {
            return Err(CliError::cannot_create(format_args!(
                "cannot create {}: it exists and is not overwritten; edit it, or move it away",
                self.config_path().display()
            )));
        }
        Ok(())
    }

    /// Writes the identity last: the directory counts as initialised once it is there.
    fn write(&self) -> Result<()> {
        if let Some(key) = &self.swarm_key {
            key.create(&self.swarm_key_path())?;
        }
        if let Some(config) = &self.config {
            let path = self.config_path();
            let failed = |e: io::Error| {
                CliError::cannot_create(format_args!(
                    "cannot create {}: {e}; check the disk and the rights on it",
                    path.display()
                ))
            };
            write_private_file(&path, config.as_bytes()).map_err(failed)?;
        }
        if let Some(identity) = &self.identity {
            identity.create(&self.identity_path())?;
        }
        Ok(())
    }

    fn report(&self, context: &Context) {
        if let Some(identity) = &self.identity {
            let peer = identity.keypair.public().to_peer_id();
            context.notice(format_args!("peer id {peer}, private key in {}", self.identity_path().display()));
        } else {
            context.notice(format_args!("kept the identity in {}", self.data_dir.display()));
        }
        if let Some(key) = &self.swarm_key {
            let path = self.swarm_key_path();
            context.notice(format_args!("swarm key {}, fingerprint {}", path.display(), key.fingerprint()));
        }
        if self.config.is_some() {
            context.notice(format_args!("configuration {}", self.config_path().display()));
        }
    }
}

/// Names the swarm key in the configuration, in place of the commented line of `config/private.toml`. A node whose
/// configuration names no key starts without one if the file is missing, and is then open to every peer.
fn with_swarm_key(config: &str) -> String {
    let named = format!("swarm_key = \"{}\"", swarm_key::FILE_NAME);
    let line = config.lines().find(|line| line.starts_with("#swarm_key = "));
    line.map_or_else(|| format!("{named}\n{config}"), |line| config.replace(line, &named))
}

fn profile_file(profile: Profile) -> &'static str {
    match profile {
        Profile::Private => config::PRIVATE_FILE,
        Profile::Amino => config::AMINO_FILE,
    }
}

/// Prints the commands for Kubo nodes on stdout, and the next step on stderr.
fn finish(plan: &Plan, private: bool, context: &Context) -> Result<()> {
    // Loaded again: swarm.key and dhtstore.toml may be new.
    let loaded = context.sources().load_detailed()?;
    for warning in &loaded.warnings {
        context.notice(format_args!("warning: {warning}"));
    }
    if let (true, Some(key)) = (private, &plan.swarm_key) {
        let Some(keypair) = identity::load(&plan.data_dir)? else {
            return Err(CliError::other(
                "cannot read the new identity: the file is gone; stop other processes that use the data directory, \
                 then try again",
            ));
        };
        let peer = keypair.public().to_peer_id();
        // The commands disable WebSockets in Kubo.
        let mut addresses = super::id::configured_addresses(&loaded.config);
        addresses.retain(|addr| !is_websocket(addr));
        output::print(join::kubo_commands(key, &super::id::bootstrap_lines(&addresses, peer), &loaded.config))?;
        context.notice("copy the swarm key only over secure channels: whoever holds it can join");
    }
    context.notice("start the node with `dhtstore run`");
    Ok(())
}
