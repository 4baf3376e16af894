//! The `steward` command: everything it does is in [`steward::cli`].

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // One provider for every TLS connection of the process; that somebody was faster is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(steward::cli::main(std::env::args_os())),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
