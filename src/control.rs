//! The local control socket that the command line talks to.
