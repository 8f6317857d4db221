//! Where settings come from: defaults, file, environment, flags.
