//! An identity from the SPIFFE Workload API, as SPIRE's agent serves it on a socket.
//!
//! # Why a client of our own
//!
//! It is one call with a stream of answers of five fields. A client from a crate brings tonic, a code generator's output
//! and types that change with each of its versions; generated code also leaves each key in a buffer that nobody wipes.
//! This is h2, which every HTTP/2 client has anyway, and a hundred lines that decode. No task is spawned: the connection
//! lives in the source, and whoever drives the source drives it.
//!
//! # How it decides
//!
//! | what comes | what becomes of it | source |
//! | --- | --- | --- |
//! | a message | it is the whole state: what is not in it any more is not trusted any more | Workload API 4.3, 4.4 |
//! | several SVIDs | the first, or the first with the hint asked for, or the one with the ID | 5.2.1, 8 |
//! | our SVID is not among them any more | withdrawn | 4.4 |
//! | a message with a mandatory field empty, or that does not decode | an error; the last state stays, the stream too | 4.5 |
//! | `PERMISSION_DENIED` after a good message | withdrawn, and asked again | 5.2.1 |
//! | the stream ends or breaks | the last state stays; connects again at once, then waits | 4.2 |
//! | `INVALID_ARGUMENT`, `UNIMPLEMENTED` | an error, and never asked again | Workload Endpoint, appendix A |
//! | any other status, or no agent | an error; waits, and asks again | the same |
//!
//! The n-th wait is n seconds and up to a fifth more, by chance, and never over 30 s; a good message starts the count
//! anew. go-spiffe waits the same without the chance, and a fleet whose agents were restarted would ask as one.
//!
//! An agent on TCP is asked by the kernel, after a minute of silence, whether it is still there; a minute later the stream has
//! ended. On a Unix domain socket the kernel knows.
//!
//! Revocation lists of the message hold for every trust domain in it. With federated bundles whose lists the agent does
//! not serve, [`Revocation::allow_unknown`](crate::Revocation::allow_unknown) is needed.
//!
//! What it does not do: JWT-SVIDs, and the call for bundles alone, which is for workloads without an identity. The
//! buffers below h2 are not wiped.
//!
//! ```no_run
//! use mesh_tls::{MeshTls, workload_api::WorkloadApiSource};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/agent.sock
//! let mesh = MeshTls::builder(WorkloadApiSource::from_env()?).spawn().await?;
//! # let _ = mesh; Ok(()) }
//! ```

mod address;
mod call;
mod message;
mod wire;

use std::{env, path::PathBuf, time::Duration};

use tokio::time;

pub use address::{Address, InvalidAddress};
pub use call::Status;
pub use message::{Choice, InvalidMessage, Response};

use self::call::Call;
use crate::{
    chance::Chance,
    error::MaterialError,
    id::SpiffeId,
    source::{IdentitySource, SourceEvent},
};

/// The variable that names the socket (SPIFFE Workload Endpoint, 4).
pub const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// go-spiffe's first and last wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(30);

/// An identity from the SPIFFE Workload API. See the [module](self).
#[derive(Debug)]
pub struct WorkloadApiSource {
    address: Address,
    choice: Choice,
    chance: Chance,
    call: Option<Call>,
    /// Calls since the last good message.
    failures: u32,
    /// Whether an identity was delivered and not withdrawn since.
    holds: bool,
    /// The agent has said its last word.
    is_over: bool,
}

// === impl WorkloadApiSource ===

impl WorkloadApiSource {
    /// A source that asks the agent at `address`.
    #[must_use]
    pub fn new(address: Address) -> Self {
        let (choice, chance) = (Choice::First, Chance::new());
        Self { address, choice, chance, call: None, failures: 0, holds: false, is_over: false }
    }

    /// As [`WorkloadApiSource::new`] with the address of a Unix domain socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Address::unix(path))
    }

    /// As [`WorkloadApiSource::new`] with the address in the variable [`SPIFFE_ENDPOINT_SOCKET`](ENDPOINT_SOCKET).
    ///
    /// # Errors
    ///
    /// When it is not set, or is not an address.
    pub fn from_env() -> Result<Self, InvalidAddress> {
        env::var(ENDPOINT_SOCKET).unwrap_or_default().parse().map(Self::new)
    }

    /// Takes the first SVID with this hint. Default: the first of all.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { choice: Choice::Hint(hint.into()), ..self }
    }

    /// Takes the SVID with this ID. Default: the first of all.
    #[must_use]
    pub fn id(self, id: SpiffeId) -> Self {
        Self { choice: Choice::Id(id), ..self }
    }

    /// Draws the waits from this seed, so that they can be repeated. Default: a new one each time.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { chance: Chance::seeded(seed), ..self }
    }

    async fn answer(&mut self) -> Result<Option<SourceEvent>, MaterialError> {
        let call = match &mut self.call {
            Some(call) => call,
            None => {
                let wait = wait(self.failures, &mut self.chance);
                time::sleep(wait).await;
                self.failures = self.failures.saturating_add(1);
                let call = Call::start(&self.address).await.map_err(MaterialError::from_source)?;
                self.call.insert(call)
            }
        };
        let message = match call.message().await {
            Ok(message) => message,
            Err(status) => {
                // An agent that answers and hangs up each time is not asked without a pause.
                let hurried = call.is_young();
                self.failures = self.failures.max(u32::from(hurried));
                self.call = None;
                self.is_over = status.is_final();
                if status.is_denial() && std::mem::take(&mut self.holds) {
                    return Ok(Some(SourceEvent::Withdrawn));
                }
                // That a stream ends is usual, once: the agent was restarted.
                let is_news = self.is_over || self.failures > 0;
                return if is_news { Err(MaterialError::from_source(status)) } else { Ok(None) };
            }
        };
        let response = Response::decode(&message).map_err(MaterialError::from_source)?;
        self.failures = 0;
        match response.into_material(&self.choice) {
            Some(material) => {
                self.holds = true;
                Ok(Some(SourceEvent::Update(material)))
            }
            None if std::mem::take(&mut self.holds) => Ok(Some(SourceEvent::Withdrawn)),
            None => Err(MaterialError::from_source("none of the agent's SVIDs is the one chosen")),
        }
    }
}

impl IdentitySource for WorkloadApiSource {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        loop {
            if self.is_over {
                std::future::pending::<()>().await;
            }
            if let Some(event) = self.answer().await? {
                return Ok(event);
            }
        }
    }
}

/// Before a call, `failures` after the last good message.
fn wait(failures: u32, chance: &mut Chance) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(failures).min(LAST_WAIT);
    chance.between(wait, wait + wait / 5).min(LAST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_is_at_once_and_the_waits_grow_to_thirty_seconds() {
        let mut chance = Chance::seeded(7);
        assert_eq!(wait(0, &mut chance), Duration::ZERO);
        let secs = |n| Duration::from_secs(n);
        for failures in 1..100 {
            let n = u64::from(failures).min(30);
            let drawn: Vec<_> = (0..50).map(|_| wait(failures, &mut chance)).collect();
            let upper = (secs(n) + secs(n) / 5).min(secs(30));
            assert!(drawn.iter().all(|d| (secs(n)..=upper).contains(d)), "{failures}: {drawn:?}");
            assert!(n == 30 || drawn.iter().any(|d| *d != drawn[0]), "a fleet must not ask as one");
        }
    }
}
