//! The program `dhtstore`. Everything is in the library, see [`dhtstore::cli`].

fn main() -> std::process::ExitCode {
    dhtstore::cli::main()
}
