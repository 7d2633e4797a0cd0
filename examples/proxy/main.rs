//! `mesh-proxy`: the mesh as a program of its own, for workloads that cannot take it as a library.
//!
//! ```text
//! application ─▶ outbound listener ─▶ routes of the documents ─▶ Upstream (all policies) ─▶ TCP or mutual TLS ─▶ endpoint
//! application ◀─ deadline, bounded queue ◀─ STRICT, PERMISSIVE or plaintext ◀─ inbound listener ◀─ other workloads
//! ```

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod admin;
mod args;
mod config;
mod demo;
mod ending;
mod first_bytes;
mod forward;
mod headers;
mod heads;
mod identity;
mod inbound;
mod outbound;
mod proxy;
mod reload;
mod routes;
mod run;
mod serve;
mod told;
mod transport;

use std::process::ExitCode;

use args::Args;
use run::Failure;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => return Failure::Usage(problem).report(),
    };
    if args.help {
        print!("{}", args::HELP);
        return ExitCode::SUCCESS;
    }
    if args.version {
        println!("mesh-proxy {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    log(&args);
    let runtime = match runtime(args.threads) {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Running(format!("no runtime: {error}")).report(),
    };
    let result = runtime.block_on(run::run(args));
    // Whatever is still open has had its time, and ends with the process. Nothing is taken apart first: what lives on
    // for a moment would tell that others have ended, as if something were wrong.
    std::mem::forget(runtime);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build()
}

/// Logs on stderr. The demonstration draws on the terminal, so there only errors interrupt it.
fn log(args: &Args) {
    let quiet = if args.config.is_some() { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
