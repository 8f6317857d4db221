//! What every command knows: the global options, the terminal, the configuration.

use super::error::Result;
use crate::config::{Config, file::Sources};
use clap::{ArgAction, ValueEnum};
use std::{
    fmt,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Options that every command takes.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Global {
    /// Configuration file [default: dhtstore.toml in the data directory, else /etc/dhtstore/dhtstore.toml for root or
    /// ~/.config/dhtstore/dhtstore.toml]
    #[arg(long, global = true, value_name = "FILE", env = "DHTSTORE_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Data directory [default: ~/.local/state/dhtstore; /var/lib/dhtstore for root and the service]
    #[arg(long, global = true, value_name = "DIR", env = "DHTSTORE_DATA_DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// Change one setting for this run, as `records.ttl=3h`; wins over environment and file; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    pub set: Vec<String>,
    /// How log lines look on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Global options")]
    pub log_format: LogFormat,
    /// Say more; twice: even more (RUST_LOG has the last word on what is logged)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say less: no notices and progress on stderr; twice: errors only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: u8,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What a command knows of its surroundings. The configuration is loaded when first asked for.
#[derive(Debug)]
pub struct Context {
    /// The global options as given.
    pub global: Global,
    /// Whether stdout is a terminal: decides on the default output format.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal: decides on progress bars and colour.
    pub stderr_is_terminal: bool,
    config: OnceLock<Config>,
}

impl Context {
    /// Surroundings of this process.
    pub fn new(global: Global) -> Self {
        Self {
            global,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            config: OnceLock::new(),
        }
    }

    /// Where settings come from for this command line.
    pub fn sources(&self) -> Sources {
        Sources {
            file: self.global.config.clone(),
            data_dir: self.global.data_dir.clone(),
            set: self.global.set.clone(),
        }
    }

    /// The effective, validated configuration. Exit 78 if it is wrong. Loaded once.
    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = self.sources().load()?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The data directory: flag, else environment, else file, else the platform's.
    pub fn data_dir(&self) -> Result<&Path> {
        Ok(&self.config()?.data_dir)
    }

    /// Tells the user something on stderr that is neither data nor an error; silent with `-q`.
    pub fn notice(&self, text: impl fmt::Display) {
        if self.global.quiet == 0 {
            // If stderr is gone there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Whether `-v` was given: `findprovs -v` shows every hop.
    pub fn verbose(&self) -> bool {
        self.global.verbose > 0
    }
}
