//! Reads settings. Flags win over the environment, the environment over the file, the file over the defaults of the
//! profile.
//!
//! One file is read: that of `--config` or `$DHTSTORE_CONFIG`; otherwise `dhtstore.toml` in the data directory (that of
//! `--data-dir`, `$DHTSTORE_DATA_DIR` or the platform), if it exists; otherwise [`defaults::config_file`], if it
//! exists. Each setting has an environment variable, for example `DHTSTORE_RECORDS_TTL` for `records.ttl`. Items of
//! lists are separated by commas. Unknown settings and unknown `DHTSTORE_` variables are errors: a misspelt limit would
//! be no limit. A relative path is relative to the file that holds it, or to the working directory.

use super::{
    Config, ConfigError, Profile, Warning, defaults,
    keys::{ENV_PREFIX, KEYS, Kind, RETIRED, did_you_mean, is_section, nearest, suggestion, variable},
};
use crate::files::{is_present, read_bounded};
use figment::{
    Figment, Metadata, Provider,
    providers::Serialized,
    value::{Dict, Map, Tag, Value},
};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Variables that are not settings.
const ENV_OTHER: [&str; 1] = ["DHTSTORE_CONFIG"];
/// Most bytes of a configuration file. A larger file must be of some other kind.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The name of the configuration file.
pub const FILE_NAME: &str = "dhtstore.toml";

/// The settings of the command line. Environment variables are read from the process.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// `--config` or `$DHTSTORE_CONFIG`. No other file is read.
    pub file: Option<PathBuf>,
    /// `--data-dir` or `$DHTSTORE_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `--set key=value`.
    pub set: Vec<String>,
}

/// The origin of a setting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The defaults of the profile.
    Default,
    /// A `swarm.key` was found in the data directory.
    DataDir,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::DataDir => f.write_str("found in the data directory"),
            Origin::File(path) => path.display().fmt(f),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// Settings as loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective settings, validated.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The origin of each setting that is not a default.
    pub origins: BTreeMap<String, Origin>,
    /// Settings that are allowed, but probably mistakes.
    pub warnings: Vec<Warning>,
}

impl Loaded {
    /// Returns the origin of the setting `key`.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

impl Sources {
    /// Returns the effective settings, validated.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_detailed().map(|loaded| loaded.config)
    }

    /// Returns the effective settings with their origins, and warnings.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_detailed(&self) -> Result<Loaded, ConfigError> {
        self.load_with(environment())
    }

    /// Loads settings as if `path` were the configuration file and held `text`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_as(&self, path: &Path, text: &str) -> Result<Loaded, ConfigError> {
        self.read(environment(), Some((path.to_owned(), text.to_owned())))
    }

    fn load_with(&self, environment: BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
        let file = self.find_file().map(|path| read(&path).map(|text| (path, text))).transpose()?;
        self.read(environment, file)
    }

    /// `file` is the path and the text of the configuration file.
    fn read(
        &self,
        environment: BTreeMap<String, String>,
        file: Option<(PathBuf, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut settings = Settings::default();
        if let Some((path, text)) = &file {
            settings.read_file(path, text)?;
        }
        let file = file.map(|(path, _)| path);
        settings.read_environment(environment);
        settings.read_flags(self);
        settings.finish(file)
    }

    /// Returns whether a configuration file in the directory `dir` would be the one that is read.
    pub fn finds_in(&self, dir: &Path) -> bool {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match &self.file {
            Some(file) => absolute(file) == absolute(dir).join(FILE_NAME),
            None => self.search_dir().is_some_and(|found| absolute(&found) == absolute(dir)),
        }
    }

    fn find_file(&self) -> Option<PathBuf> {
        if self.file.is_some() {
            return self.file.clone();
        }
        let in_data_dir = self.search_dir().map(|dir| dir.join(FILE_NAME));
        [in_data_dir, defaults::config_file()].into_iter().flatten().find(|path| is_present(path))
    }

    fn search_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(defaults::data_dir)
    }
}

/// Returns the `DHTSTORE_` variables of this process.
fn environment() -> BTreeMap<String, String> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(ENV_PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    ours.collect()
}

/// Settings while they are collected. Later ones replace earlier ones.
#[derive(Default)]
struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    problems: Vec<String>,
    /// Settings of older versions that were found.
    retired: Vec<(Warning, Origin)>,
}

impl Settings {
    /// If `is_it` matches a setting of an older version, adds its warning. Returns whether it does.
    fn retire(&mut self, origin: &Origin, is_it: impl Fn(&str) -> bool) -> bool {
        let found = RETIRED.iter().find(|(key, _)| is_it(key));
        self.retired.extend(found.map(|(key, why)| (Warning { key, message: (*why).into() }, origin.clone())));
        found.is_some()
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax { path: path.into(), source })?;
        let origin = Origin::File(path.into());
        let value = Value::serialize(table).map_err(|e| ConfigError::invalid(format!("{}: {e}", path.display())))?;
        let base = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        self.walk("", value, &origin, &base);
        Ok(())
    }

    /// Collects the settings of nested tables.
    fn walk(&mut self, prefix: &str, value: Value, origin: &Origin, base: &Path) {
        if let Some((key, kind)) = KEYS.iter().find(|(key, _)| *key == prefix) {
            let value = match (kind, value.as_str()) {
                (Kind::Path, Some(path)) => Value::from(absolute(path, base)),
                _ => value,
            };
            self.values.insert(key, (value, origin.clone()));
            return;
        }
        if self.retire(origin, |key| key == prefix) {
            return;
        }
        match value {
            Value::Dict(_, entries) if is_section(prefix) => {
                for (name, value) in entries {
                    let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                    self.walk(&key, value, origin, base);
                }
            }
            _ if is_section(prefix) => self.problems.push(format!("{origin}: {prefix} is a section; write [{prefix}]")),
            _ => self.problems.push(format!("{origin}: unknown setting {prefix}{}", suggestion(prefix))),
        }
    }

    fn read_environment(&mut self, environment: BTreeMap<String, String>) {
        for (name, text) in environment {
            if ENV_OTHER.contains(&name.as_str()) || !name.starts_with(ENV_PREFIX) {
                continue;
            }
            match KEYS.iter().find(|(key, _)| variable(key) == name) {
                Some((key, kind)) => self.set_text(key, kind, &text, Origin::Environment(name)),
                None if self.retire(&Origin::Environment(name.clone()), |key| variable(key) == name) => {}
                None => {
                    let known = KEYS.iter().map(|(key, _)| variable(key)).chain(ENV_OTHER.map(String::from));
                    let nearest = nearest(&name, known);
                    self.problems.push(format!("unknown environment variable {name}{}", did_you_mean(nearest)));
                }
            }
        }
    }

    fn read_flags(&mut self, sources: &Sources) {
        for assignment in &sources.set {
            let Some((key, text)) = assignment.split_once('=') else {
                self.problems.push(format!("--set {assignment}: write key=value, like records.ttl=3h"));
                continue;
            };
            match KEYS.iter().find(|(known, _)| *known == key.trim()) {
                Some((key, kind)) => self.set_text(key, kind, text, Origin::Flag("--set")),
                None if self.retire(&Origin::Flag("--set"), |known| known == key.trim()) => {}
                None => self.problems.push(format!("--set: unknown setting {key}{}", suggestion(key))),
            }
        }
        if let Some(dir) = &sources.data_dir {
            let dir = dir.to_string_lossy();
            // clap returns one value for the flag and the variable. If it equals the variable, that is its origin.
            let from_variable = self.values.get("data_dir").is_some_and(|(value, origin)| {
                matches!(origin, Origin::Environment(_)) && value.as_str() == Some(&absolute(&dir, Path::new("")))
            });
            if !from_variable {
                self.set_text("data_dir", &Kind::Path, &dir, Origin::Flag("--data-dir"));
            }
        }
    }

    fn set_text(&mut self, key: &'static str, kind: &Kind, text: &str, origin: Origin) {
        let value = match kind {
            Kind::Choice(_) | Kind::Size(_) | Kind::Duration(_) | Kind::Cron => Value::from(text),
            Kind::Path => Value::from(absolute(text, Path::new(""))),
            Kind::Addresses => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(Tag::Default, items.map(Value::from).collect())
            }
            Kind::Number(_) => match text.trim().replace('_', "").parse::<u64>() {
                Ok(number) => Value::from(number),
                Err(_) => {
                    self.problems.push(format!("{origin}: {key}: \"{text}\" is not a number"));
                    return;
                }
            },
            Kind::Switch => match text.trim() {
                "true" => Value::from(true),
                "false" => Value::from(false),
                _ => {
                    self.problems.push(format!("{origin}: {key}: \"{text}\" is neither true nor false"));
                    return;
                }
            },
        };
        self.values.insert(key, (value, origin));
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        let profile = self.profile();
        let mut figment = Figment::from(Serialized::defaults(Config::defaults(profile)));
        for (key, (value, origin)) in &self.values {
            figment = figment.merge(Setting { key, value, origin });
        }
        // Each problem is reported, not only the first.
        let config = match figment.extract::<Config>() {
            Ok(config) => Some(config),
            Err(errors) => {
                for error in errors {
                    let key = error.path.join(".");
                    let place = match self.values.get(key.as_str()).or_else(|| self.values.get(key.rsplit_once('.')?.0))
                    {
                        Some((_, Origin::Flag(flag))) => format!("{flag}: {key}"),
                        Some((_, origin)) => format!("{origin}: {key}"),
                        None => key,
                    };
                    self.problems.push(format!("{place}: {}", error.kind));
                }
                None
            }
        };
        let Some(mut config) = config.filter(|_| self.problems.is_empty()) else {
            return Err(ConfigError::Invalid { problems: self.problems });
        };
        if config.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::invalid(NO_DATA_DIR));
        }
        let mut origins: BTreeMap<_, _> =
            self.values.into_iter().map(|(key, (_, origin))| (key.to_owned(), origin)).collect();
        if config.swarm_key.is_none() {
            let key = Config::default_swarm_key(&config.data_dir);
            if is_present(&key) {
                config.swarm_key = Some(key);
                origins.insert("swarm_key".into(), Origin::DataDir);
            }
        }
        let mut warnings = config.validate().map_err(|e| located(e, &origins))?;
        for (warning, origin) in self.retired {
            origins.insert(warning.key.to_owned(), origin);
            warnings.push(warning);
        }
        Ok(Loaded { config, file, origins, warnings })
    }

    /// Returns the profile, which selects the defaults. A wrong one is reported with all other problems.
    fn profile(&self) -> Profile {
        let named = self.values.get("profile").and_then(|(value, _)| value.as_str());
        match named {
            Some(name) if name == Profile::Amino.name() => Profile::Amino,
            _ => Profile::default(),
        }
    }
}

/// A setting as a provider of figment.
struct Setting<'a> {
    key: &'a str,
    value: &'a Value,
    origin: &'a Origin,
}

impl Provider for Setting<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> figment::error::Result<Map<figment::Profile, Dict>> {
        let nested = figment::util::nest(self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(figment::Profile::Default.collect(dict))
    }
}

/// Puts the origin of the setting in front of each problem, except for defaults.
fn located(error: ConfigError, origins: &BTreeMap<String, Origin>) -> ConfigError {
    let ConfigError::Invalid { problems } = error else { return error };
    let locate = |problem: String| {
        let origin = problem.split_once(": ").and_then(|(key, _)| origins.get(key));
        match origin {
            Some(origin) => format!("{origin}: {problem}"),
            None => problem,
        }
    };
    ConfigError::Invalid { problems: problems.into_iter().map(locate).collect() }
}

const NO_DATA_DIR: &str =
    "data_dir: this user has no home directory; set a data directory with --data-dir DIR or DHTSTORE_DATA_DIR";

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::ErrorKind::FileTooLarge;
    let not_text = |reason| ConfigError::NotText { path: path.into(), reason };
    let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(|source| match source.kind() {
        FileTooLarge => not_text(format!(
            "larger than {MAX_FILE_BYTES} bytes, so this is no configuration file; \
            correct the path"
        )),
        _ => ConfigError::Read { path: path.into(), source },
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(not_text(
            "is in UTF-16, but a configuration must be in UTF-8; convert it with `iconv -f UTF-16 -t UTF-8`".into(),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| not_text("is damaged: not text in UTF-8; restore it from a backup, or write a new one".into()))
}

/// Returns the absolute path of `text`. `~/` is the home directory. A relative path is relative to `base`, or to the
/// working directory if `base` is empty.
fn absolute(text: &str, base: &Path) -> String {
    let path = match (text.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => base.join(text),
    };
    std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
