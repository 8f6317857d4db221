//! Where settings come from: defaults, file, environment, flags.

use super::{Config, ConfigError, Profile};
use std::path::PathBuf;

/// What the command line says about settings. Environment variables are read from the process.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// `--config`: this file and no other.
    pub file: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--set key=value`.
    pub set: Vec<String>,
}

impl Sources {
    /// The effective, validated configuration.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Ok(Config::defaults(Profile::default()))
    }
}
