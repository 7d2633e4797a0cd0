//! What the command line asks for, from the beginning to the end.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin::prometheus::Exporter,
    args::Args,
    config::{ConfigError, Files, Settings},
    demo, identity,
    proxy::{Listeners, Running},
    reload, transport,
};

/// Why the program does not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The configuration is wrong.
    Config(ConfigError),
    /// It could not run, or not to its end.
    Running(String),
}

impl Failure {
    /// Says it on stderr, and gives the code to end with.
    pub(crate) fn report(&self) -> ExitCode {
        let (code, text) = match self {
            Self::Usage(problem) => (2, problem.clone()),
            Self::Config(error) => (2, error.to_string()),
            Self::Running(problem) => (1, problem.clone()),
        };
        for line in text.lines() {
            eprintln!("mesh-proxy: {line}");
        }
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let exporter = Exporter::installed();
    drop(tokio::spawn(exporter.upkeep()));
    match args.config {
        None => demo::run(args.run_for).await,
        Some(directory) if args.check => check(&directory).await,
        Some(directory) => serve(directory).await,
    }
}

/// Everything short of listening: whether a port is free now says nothing of when the proxy is started.
async fn check(directory: &Path) -> Result<(), Failure> {
    let settings = Settings::read(&Files::read(directory)?, directory)?;
    if let Some(files) = &settings.proxy.identity {
        let identity = identity::load(files).await?;
        if let Some(own) = identity.status().identity {
            println!("identity {}", own.id());
        }
    }
    for warning in &settings.warnings {
        println!("warning: {warning}");
    }
    transport::check(settings.routing.upstreams.values())?;
    if settings.proxy.inbound.is_some() {
        println!("inbound mode {:?}", settings.mode);
    }
    let count = settings.routing.upstreams.len();
    println!("{count} {}", if count == 1 { "upstream" } else { "upstreams" });
    println!("{}: the configuration is good", directory.display());
    Ok(())
}

async fn serve(directory: PathBuf) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let hangups = listen_for(SignalKind::hangup())?;
    let files = Files::read(&directory)?;
    let settings = Settings::read(&files, &directory)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let identity = match &settings.proxy.identity {
        Some(files) => Some(identity::load(files).await?),
        None => None,
    };
    let listeners = Listeners::open(&settings.proxy)
        .await
        .map_err(|error| Failure::Running(error.to_string()))?;
    let running = Running::start(settings, identity, Vec::new(), listeners)?;
    tracing::info!("listening: {}", running.addresses);
    let (live, admin) = (running.live.clone(), running.admin.clone());
    drop(tokio::spawn(reload::follow(directory, live, admin, hangups, files)));
    let name = signals.next().await;
    tracing::info!("{name}: draining; once more to end at once");
    end(running, &mut signals).await
}

/// Drains, and ends at once on the next signal.
pub(crate) async fn end(running: Running, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        drained = running.drain() => {
            if drained {
                tracing::info!("drained");
            } else {
                tracing::warn!("the time to drain is over, and some connections are still open");
            }
            Ok(())
        }
        name = signals.next() => Err(Failure::Running(format!("{name} while draining: ended at once"))),
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Running(format!("cannot wait for signals: {error}")))
}

/// The signals that end the program.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
