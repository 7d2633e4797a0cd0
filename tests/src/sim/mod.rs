//! A small world in virtual time for the real layers.
//!
//! Why not mocks of the layers: the promises are about all of them together. Only the ends are simulated, callers and
//! endpoints; everything in between is what a user runs. Time is tokio's paused clock, chance comes from seeds, so a
//! run can be repeated from its seed alone.

pub mod balancers;
mod fleet;
mod ledger;
pub mod subsetting;
mod swarm;
mod world;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use mesh_core::Rng;
use mesh_tower::{MeshError, error::Reason, upstream::Upstream};
use tower::ServiceExt;

pub use fleet::{Fleet, Mode};
pub use ledger::{Declared, End, Ledger};
pub use swarm::{Fault, Swarm};
pub use world::{Act, Node, Seen, World};

/// Runs `future` on a runtime of its own whose clock stands still until everybody waits.
///
/// # Panics
///
/// If the system gives no runtime.
pub fn in_paused_time<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system")
        .block_on(future)
}

/// A request that its endpoints can tell from others.
pub fn request(id: u64) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    request.headers_mut().insert(world::REQUEST_ID, id.into());
    request
}

/// Sends request `id` and reads the answer: its status, or the mesh's own word.
///
/// # Errors
///
/// What the upstream says where there is no answer.
pub async fn ask(upstream: &Upstream<World>, id: u64) -> Result<u16, MeshError> {
    match upstream.clone().oneshot(request(id)).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            match body.collect().await {
                Ok(_) => Ok(head.status.as_u16()),
                Err(never) => match never {},
            }
        }
        Err(error) => Err(match error.downcast::<MeshError>() {
            Ok(error) => *error,
            Err(other) => MeshError::new(Reason::Reset).with_source(other),
        }),
    }
}

/// A time from the exponential distribution: gaps of a Poisson stream, or service times.
pub fn exponential(rng: &mut impl Rng, mean: Duration) -> Duration {
    // Never ln(0); the grain of 2⁻⁵³ is that of the float.
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    mean.mul_f64(-uniform.ln())
}
